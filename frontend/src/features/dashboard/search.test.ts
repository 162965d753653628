import { describe, expect, it } from "vitest";
import { dashboardSearch } from "./search";

describe("the dashboard's URL", () => {
  it("accepts valid values", () => {
    const given = {
      range: "36h",
      dag: "reports",
      user: "ulla",
      view: "errors",
      sort: "-cost",
      behind: { error: "timeout" },
    };
    expect(dashboardSearch(given)).toEqual(given);
  });

  it("drops defaults and invalid values", () => {
    expect(
      dashboardSearch({
        range: "1w",
        dag: "",
        user: 7,
        view: "runs",
        measure: "beauty",
        sort: "a;b",
        behind: { agent: 3 },
      }),
    ).toEqual({});
    expect(dashboardSearch({ behind: "agent" })).toEqual({});
  });

  it("lists the runs of one figure at a time", () => {
    expect(dashboardSearch({ behind: { agent: "seen", error: "timeout" } })).toEqual({ behind: { agent: "seen" } });
  });
});
