import { describe, expect, it } from "vitest";
import {
  axisOf,
  bucketLabel,
  costPoints,
  errorPoints,
  runPoints,
  stepLabel,
  successPoints,
  tickLabel,
  ticksOf,
} from "./series";

const bucket = (start: string, more: object = {}) => ({
  start,
  total: 0,
  success: 0,
  failed: 0,
  cancelled: 0,
  input_tokens: 0,
  output_tokens: 0,
  cost_usd: null,
  ...more,
});

/** A series of `count` buckets that begins a minute before the figure does and ends within the last one. */
function series(first: Date, seconds: number, count: number) {
  const starts = Array.from({ length: count }, (_, index) => new Date(first.getTime() + index * seconds * 1000));
  const last = starts.at(-1) ?? first;
  return axisOf({
    since: new Date(first.getTime() + 60_000).toISOString(),
    until: new Date(last.getTime() + 60_000).toISOString(),
    bucket_seconds: seconds,
    time_series: starts.map((start) => ({ start: start.toISOString() })),
  });
}

describe("points", () => {
  it("counts unfinished runs separately", () => {
    const [point] = runPoints([bucket("2026-05-03T12:00:00Z", { total: 9, success: 4, failed: 2, cancelled: 1 })]);
    expect(point).toMatchObject({ success: 4, failed: 2, cancelled: 1, unfinished: 2 });
  });

  it("has a gap where no run finished, and 0 where all failed", () => {
    const rates = successPoints([
      bucket("2026-05-03T12:00:00Z", { total: 2 }),
      bucket("2026-05-03T12:30:00Z", { total: 2, failed: 2 }),
      bucket("2026-05-03T13:00:00Z", { total: 4, success: 3, cancelled: 1 }),
    ]).map((point) => point.rate);
    expect(rates).toEqual([null, 0, 0.75]);
  });

  it("never shows an unknown cost as zero", () => {
    expect(costPoints([bucket("2026-05-03T12:00:00Z", { input_tokens: 5 })])[0]?.cost).toBeNull();
    expect(costPoints([bucket("2026-05-03T12:00:00Z", { cost_usd: 0 })])[0]?.cost).toBe(0);
  });

  it("combines categories that aren't named", () => {
    const by = { rate_limit: 3, auth: 1, tool: 2 };
    const [point, empty] = errorPoints(
      [
        { start: "2026-05-03T12:00:00Z", total: 6, by_category: by },
        { start: "2026-05-03T12:30:00Z", total: 0 },
      ],
      ["rate_limit"],
    );
    expect(point).toMatchObject({ rate_limit: 3, others: 3 });
    expect(empty).toMatchObject({ rate_limit: 0, others: 0 });
  });
});

describe("the axis", () => {
  const noon = new Date(2026, 4, 3, 12, 0, 0);

  it("labels round times of a day", () => {
    const axis = series(new Date(2026, 4, 3, 11, 30, 0), 1800, 48);
    const labels = ticksOf(axis).map((start) => tickLabel(start, axis));
    expect(labels).toEqual(["12:00", "15:00", "18:00", "21:00", "4 May", "03:00", "06:00", "09:00"]);
  });

  it("labels midnights when it spans days", () => {
    const axis = series(noon, 4 * 3600, 42);
    const labels = ticksOf(axis).map((start) => tickLabel(start, axis));
    expect(labels).toHaveLength(7);
    expect(labels[0]).toBe("4 May");
  });

  it("never has more labels than fit", () => {
    for (const [seconds, count] of [
      [15, 61],
      [60, 61],
      [600, 37],
      [86_400, 31],
      [172_800, 46],
      [604_800, 53],
    ] as const) {
      const labels = ticksOf(series(noon, seconds, count));
      expect(labels.length).toBeGreaterThan(1);
      expect(labels.length).toBeLessThanOrEqual(9);
    }
  });

  it("describes a bucket's time and how much of it counts", () => {
    const axis = series(noon, 1800, 3);
    const [first, second, last] = axis.starts;
    expect(bucketLabel(first ?? 0, axis)).toBe("3 May, 12:00 – 12:30 (counted from 12:01)");
    expect(bucketLabel(second ?? 0, axis)).toBe("3 May, 12:30 – 13:00");
    expect(bucketLabel(last ?? 0, axis)).toBe("3 May, 13:00 – 13:30 (so far)");
    expect(stepLabel(axis)).toBe("30 minutes");
  });

  it("counts days by UTC, and says so", () => {
    const axis = series(new Date("2026-05-03T00:00:00Z"), 86_400, 3);
    expect(bucketLabel(axis.starts[1] ?? 0, axis)).toBe("4 May, UTC");
    const weeks = series(new Date("2026-05-04T00:00:00Z"), 7 * 86_400, 3);
    expect(bucketLabel(weeks.starts[1] ?? 0, weeks)).toBe("11 May – 17 May, UTC");
    expect(stepLabel(weeks)).toBe("7 days");
  });
});
