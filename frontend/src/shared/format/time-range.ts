/** The monitoring API's `time_range`: a whole number of minutes, hours or days, at most 366 days. */

export const RANGES = ["15m", "1h", "6h", "24h", "7d", "30d", "90d"] as const;

/** The API's default. */
export const DEFAULT_RANGE = "24h";

const UNITS = { m: 60, h: 3_600, d: 86_400 } as const;
const LONGEST = 366 * UNITS.d;

/** The hint for an invalid range. */
export const RANGE_HELP = "Enter minutes, hours or days, such as 45m, 12h or 14d, up to 366d";

/** The seconds in a range; null if it is invalid. */
export function secondsOf(text: string): number | null {
  const [, number, unit] = /^([1-9][0-9]{0,5})([mhd])$/.exec(text) ?? [];
  if (number === undefined || !isUnit(unit)) return null;
  const seconds = Number(number) * UNITS[unit];
  return seconds <= LONGEST ? seconds : null;
}

/** A range in words: the last 15 minutes, the last hour. */
export function lastRange(range: string): string {
  const [, number, unit] = /^([0-9]+)([mhd])$/.exec(range) ?? [];
  if (number === undefined || !isUnit(unit)) return `the last ${range}`;
  const name = { m: "minute", h: "hour", d: "day" }[unit];
  return number === "1" ? `the last ${name}` : `the last ${number} ${name}s`;
}

function isUnit(text: string | undefined): text is keyof typeof UNITS {
  return text !== undefined && text in UNITS;
}
