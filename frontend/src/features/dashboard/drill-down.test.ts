import { describe, expect, it } from "vitest";
import { runsOf } from "./drill-down";

describe("the run list behind a figure", () => {
  it.each([
    ["15m", "1h"],
    ["1h", "1h"],
    ["6h", "24h"],
    ["24h", "24h"],
    ["25h", "7d"],
    ["7d", "7d"],
    ["30d", "30d"],
    ["90d", undefined],
  ])("of %s goes back %s, so that no run is missing", (range, since) => {
    expect(runsOf({ range }).since).toBe(since);
  });

  it("keeps the filters that are set", () => {
    expect(runsOf({ range: "7d", dag: "reports", user: "ulla", state: ["failed"] })).toEqual({
      dag: "reports",
      user: "ulla",
      state: ["failed"],
      since: "7d",
    });
    expect(runsOf({ range: "90d", dag: undefined })).toEqual({});
  });
});
