import { expect, it } from "vitest";
import { compareSearch } from "./search";

it("keeps runs only", () => {
  expect(compareSearch({ left: "a/run/1", right: "b" })).toEqual({ left: "a/run/1" });
  expect(compareSearch({ left: 3, right: "/x" })).toEqual({});
});
