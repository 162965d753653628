import { describe, expect, it } from "vitest";
import { bytes, cost, count, percent } from "./amounts";
import { ago, duration, elapsed, latency, moment } from "./times";

describe("amounts", () => {
  it.each([
    [null, "–"],
    [0, "0"],
    [12_345, "12,345"],
    [123_456, "123.5K"],
  ])("counts %s as %s", (value, shown) => expect(count(value)).toBe(shown));

  it.each([
    [null, "–"],
    [0, "$0"],
    [0.00001, "<$0.0001"],
    [0.00042, "$0.00042"],
    [0.0002, "$0.00020"],
    [0.0123, "$0.012"],
    [0.5, "$0.50"],
    [1234.5, "$1,234.50"],
  ])("costs %s as %s", (value, shown) => expect(cost(value)).toBe(shown));

  it.each([
    [0, "0 %"],
    [0.975, "97.5 %"],
    [1, "100 %"],
    [null, "–"],
  ])("a share of %s as %s", (value, shown) => expect(percent(value)).toBe(shown));

  it.each([
    [512, "512 B"],
    [3_400_000, "3.4 MB"],
    [34_000, "34 KB"],
  ])("%s bytes as %s", (value, shown) => expect(bytes(value)).toBe(shown));
});

describe("times", () => {
  it.each([
    [null, "–"],
    [0.416, "0.42 s"],
    [12.34, "12.3 s"],
    [59.97, "1 min 00 s"],
    [245, "4 min 05 s"],
    [3 * 3600 + 12 * 60, "3 h 12 min"],
    [52 * 3600, "2 d 4 h"],
  ])("%s seconds as %s", (value, shown) => expect(duration(value)).toBe(shown));

  it("shows milliseconds below a second", () => {
    expect(latency(416.4)).toBe("416 ms");
    expect(latency(1500)).toBe("1.5 s");
  });

  it("counts to the end, or to now", () => {
    const start = "2026-01-01T12:00:00Z";
    expect(elapsed(start, "2026-01-01T12:00:05Z", 0)).toBe(5);
    expect(elapsed(start, null, Date.parse("2026-01-01T12:01:00Z"))).toBe(60);
    expect(elapsed(null, null, 0)).toBeNull();
  });

  it("omits today's date and this year", () => {
    const now = new Date(2026, 4, 3, 18, 0, 0).getTime();
    expect(moment(new Date(2026, 4, 3, 14, 3, 22).toISOString(), now)).toBe("14:03:22");
    expect(moment(new Date(2026, 4, 1, 14, 3, 22).toISOString(), now)).toBe("1 May, 14:03");
    expect(moment(new Date(2025, 4, 1, 14, 3, 22).toISOString(), now)).toBe("1 May 2025, 14:03");
  });

  it.each([
    [2, "just now"],
    [42, "42 s ago"],
    [300, "5 min ago"],
    [7200, "2 h ago"],
    [3 * 86_400, "3 d ago"],
  ])("%s seconds ago as %s", (seconds, shown) => {
    const now = Date.parse("2026-01-10T12:00:00Z");
    expect(ago(new Date(now - seconds * 1000).toISOString(), now)).toBe(shown);
  });
});
