import type { Try } from "@/shared/stream/run-model";

/** A time span in milliseconds. */
export interface Span {
  from: number;
  to: number;
}

/** The span of a run and its tries; null if nothing has a time. `now` is null for a finished run. */
export function spanOf(
  starts: readonly (string | null)[],
  tries: readonly Try[],
  now: number | null,
  finishedAt: string | null,
): Span | null {
  const times = [...starts, finishedAt, ...tries.flatMap((one) => [one.startedAt, one.finishedAt])]
    .filter((time) => time !== null)
    .map((time) => Date.parse(time));
  if (now !== null) times.push(now);
  if (times.length === 0) return null;
  const from = Math.min(...times);
  return { from, to: Math.max(from + 1000, ...times) };
}

const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400];

/** Four to eight round numbers of seconds, counted from the start of the span. */
export function ticksOf({ from, to }: Span): number[] {
  const seconds = (to - from) / 1000;
  const step = STEPS.find((one) => seconds / one <= 8) ?? Math.ceil(seconds / 8 / 86_400) * 86_400;
  return Array.from({ length: Math.floor(seconds / step) + 1 }, (_, index) => Math.round(index * step * 10) / 10);
}

/** Formats a mark's seconds: 0, 0.5 s, 5 s, 2 min, 1 h. */
export function tickLabel(seconds: number): string {
  if (seconds === 0) return "0";
  if (seconds < 60 || seconds % 60 !== 0) return `${seconds} s`;
  if (seconds < 3600 || seconds % 1800 !== 0) return `${seconds / 60} min`;
  return seconds < 172_800 ? `${seconds / 3600} h` : `${seconds / 86_400} d`;
}
