import { expect, it } from "vitest";
import { dagIds, standing } from "./standing";

it("says whether a token is accepted", () => {
  const now = Date.parse("2026-03-01T00:00:00Z");
  expect(standing({ expires_at: "2026-03-02T00:00:00Z", revoked_at: null }, now)).toBe("valid");
  expect(standing({ expires_at: "2026-02-28T00:00:00Z", revoked_at: null }, now)).toBe("expired");
  expect(standing({ expires_at: "2026-02-28T00:00:00Z", revoked_at: "2026-02-01T00:00:00Z" }, now)).toBe("revoked");
});

it("reads a list of workflows", () => {
  expect(dagIds(" a, b\n c,,a ")).toEqual(["a", "b", "c"]);
  expect(dagIds("  ")).toBeNull();
});
