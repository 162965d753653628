import { describe, expect, it } from "vitest";
import { lastRange, secondsOf } from "./time-range";

describe("time ranges", () => {
  it.each([
    ["15m", 900],
    ["1h", 3_600],
    ["36h", 129_600],
    ["366d", 366 * 86_400],
    ["527040m", 366 * 86_400],
  ])("%s is %s seconds", (text, seconds) => expect(secondsOf(text)).toBe(seconds));

  it.each(["", "0h", "-1h", "24", "h", "1w", "1.5h", "24 h", "24H", "367d", "527041m", "9999999m"])(
    "%j is no range",
    (text) => expect(secondsOf(text)).toBeNull(),
  );

  it.each([
    ["1h", "the last hour"],
    ["24h", "the last 24 hours"],
    ["7d", "the last 7 days"],
  ])("%s in words", (range, words) => expect(lastRange(range)).toBe(words));
});
