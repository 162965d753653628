import { describe, expect, it } from "vitest";
import { spanOf, tickLabel, ticksOf } from "./time-axis";

const at = (second: number) => new Date(second * 1000).toISOString();

describe("the time axis", () => {
  it("spans from queueing to now while the run is active", () => {
    const tries = [{ number: 1, state: "running", startedAt: at(12), finishedAt: null }];
    expect(spanOf([at(10), null], tries, 20_000, null)).toEqual({ from: 10_000, to: 20_000 });
  });

  it("spans at least a second, so nothing is divided by zero", () => {
    expect(spanOf([at(10)], [], null, null)).toEqual({ from: 10_000, to: 11_000 });
    expect(spanOf([null], [], null, null)).toBeNull();
  });

  it.each([
    [1, [0, 0.2, 0.4, 0.6, 0.8, 1]],
    [35, [0, 5, 10, 15, 20, 25, 30, 35]],
    [400, [0, 60, 120, 180, 240, 300, 360]],
  ])("of %d s has round marks", (seconds, marks) => expect(ticksOf({ from: 0, to: seconds * 1000 })).toEqual(marks));

  it.each([
    [0, "0"],
    [0.5, "0.5 s"],
    [90, "90 s"],
    [120, "2 min"],
    [5400, "1.5 h"],
    [86_400, "24 h"],
  ])("says %s s as %s", (seconds, shown) => expect(tickLabel(seconds)).toBe(shown));
});
