import { expect, it } from "vitest";
import { amountOf, idOf, kindOf, shareOf, subjectOf } from "./limits";

it("names whom a limit is for and what it is of", () => {
  expect(subjectOf("user:a:b")).toBe("the user a:b");
  expect(subjectOf("each_user")).toBe("each user");
  expect(kindOf({ kind: "tokens", period: "day" })).toBe("Tokens a day");
  expect(kindOf({ kind: "runs_at_once", period: null })).toBe("Runs at once");
});

it("shows amounts in their units", () => {
  expect(amountOf("cost_usd", 2.5)).toBe("$2.50");
  expect(amountOf("upload_bytes", 5_000_000)).toBe("5 MB");
  expect(amountOf("tokens", 12_345)).toBe("12,345");
  expect(amountOf("batch_size", null)).toBe("–");
});

it("says which share is used", () => {
  expect(shareOf({ used: 5, limit: 20 })).toBe(25);
  expect(shareOf({ used: 50, limit: 20 })).toBe(100);
  expect(shareOf({ used: 0, limit: 0 })).toBe(100);
  expect(shareOf({ used: null, limit: 20 })).toBeNull();
});

it("makes an id of what a limit is for", () => {
  const body = { subject: "role:Data Science", kind: "tokens", period: "day", limit: 1 } as const;
  expect(idOf(body)).toBe("role:Data_Science.tokens.day");
});
