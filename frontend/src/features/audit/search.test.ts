import { expect, it } from "vitest";
import { detailText } from "./actions";
import { auditSearch } from "./search";

it("keeps the filters that exist", () => {
  const given = { action: "run.cancel", outcome: "failed", user: "ulla", since: "24h" };
  expect(auditSearch({ ...given, other: 1 })).toEqual(given);
  expect(auditSearch({ action: "toString", outcome: "fine", user: "", since: "1y" })).toEqual({});
});

it("puts details into one line", () => {
  expect(detailText({ status: 403, reason: "no", dag_ids: ["a", "b"], owner: null })).toBe(
    "status 403 · reason no · dag ids a, b",
  );
  expect(detailText({})).toBe("");
});
