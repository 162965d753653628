import type { RunBucket, WorkflowMetrics } from "@/shared/api/schema";

/** The figures of a bucket. Null is a gap: there was nothing to compute from, or the value is unknown. */
export type Point = { start: number } & Record<string, number | null>;

/** The time span of a series. */
export interface Axis {
  /** Milliseconds. */
  since: number;
  until: number;
  /** The width of a bucket. */
  step: number;
  starts: number[];
}

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** About how many labels fit below a figure. */
const LABELS = 8;

interface Series {
  since: string;
  until: string;
  bucket_seconds: number;
  time_series: { start: string }[];
}

export function axisOf(series: Series): Axis {
  return {
    since: Date.parse(series.since),
    until: Date.parse(series.until),
    step: series.bucket_seconds * 1000,
    starts: series.time_series.map((bucket) => Date.parse(bucket.start)),
  };
}

/** Runs by outcome; active ones are `unfinished`. */
export function runPoints(series: WorkflowMetrics["time_series"]): Point[] {
  return series.map((bucket) => ({
    start: Date.parse(bucket.start),
    success: bucket.success,
    failed: bucket.failed,
    cancelled: bucket.cancelled,
    unfinished: Math.max(0, bucket.total - finished(bucket)),
  }));
}

/** The share of finished runs that succeeded; null where none finished. */
export function successPoints(series: WorkflowMetrics["time_series"]): Point[] {
  return series.map((bucket) => ({
    start: Date.parse(bucket.start),
    rate: finished(bucket) > 0 ? bucket.success / finished(bucket) : null,
  }));
}

export function tokenPoints(series: WorkflowMetrics["time_series"]): Point[] {
  return series.map((bucket) => ({
    start: Date.parse(bucket.start),
    input: bucket.input_tokens,
    output: bucket.output_tokens,
  }));
}

/** The known cost; null, not 0, where the price is unknown. */
export function costPoints(series: WorkflowMetrics["time_series"]): Point[] {
  return series.map((bucket) => ({ start: Date.parse(bucket.start), cost: bucket.cost_usd ?? null }));
}

/** Errors of the named categories, and of all others together. */
export function errorPoints(
  series: { start: string; total: number; by_category?: Record<string, number> }[],
  named: readonly string[],
): Point[] {
  return series.map((bucket) => {
    const counts = named.map((category) => bucket.by_category?.[category] ?? 0);
    return {
      start: Date.parse(bucket.start),
      ...Object.fromEntries(named.map((category, index) => [category, counts[index] ?? 0])),
      others: bucket.total - counts.reduce((sum, count) => sum + count, 0),
    };
  });
}

/** Whether buckets are days or weeks, which begin at midnight UTC wherever the reader is. */
export function byDays(axis: Axis): boolean {
  return axis.step >= DAY;
}

/** The buckets to label, `most` at most: midnights if the figure spans days, otherwise round times. */
export function ticksOf(axis: Axis, most = LABELS): number[] {
  const { starts, step } = axis;
  if (!byDays(axis) && axis.until - axis.since > 1.5 * DAY) {
    const midnights = starts.filter((start, index) => index > 0 && !sameDay(start, starts[index - 1]));
    return every(midnights, Math.ceil(midnights.length / most));
  }
  if (byDays(axis)) return every(starts, Math.ceil(starts.length / most));
  // Round times: 14:00, 14:05, …
  const span = axis.until - axis.since;
  const width = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720].map((minutes) => minutes * 60_000);
  const between = width.find((one) => span / one <= most && one % step === 0) ?? 6 * HOUR;
  return starts.filter((start) => (start - new Date(start).getTimezoneOffset() * 60_000) % between === 0);
}

/** The label below a bucket. */
export function tickLabel(start: number, axis: Axis): string {
  if (byDays(axis)) return day.utc.format(start);
  const midnight = clock.format(start) === "00:00";
  return midnight || axis.until - axis.since > 1.5 * DAY ? day.local.format(start) : clock.format(start);
}

/** Describes the part of a bucket that lies within the figure's span: 3 May, 14:00 – 14:30 (so far). */
export function bucketLabel(start: number, axis: Axis): string {
  const end = start + axis.step;
  const notes = [
    ...(start < axis.since ? [`counted from ${clock.format(axis.since)}`] : []),
    ...(end > axis.until ? ["so far"] : []),
  ];
  const note = notes.length > 0 ? ` (${notes.join(", ")})` : "";
  if (byDays(axis)) {
    const last = end - DAY;
    const days = last > start ? `${day.utc.format(start)} – ${day.utc.format(last)}` : day.utc.format(start);
    return `${days}, UTC${note}`;
  }
  const format = axis.step < 60_000 ? seconds : clock;
  const until = sameDay(start, end) ? format.format(end) : `${day.local.format(end)}, ${format.format(end)}`;
  return `${day.local.format(start)}, ${format.format(start)} – ${until}${note}`;
}

/** A bucket's width: 30 minutes, a day. */
export function stepLabel(axis: Axis): string {
  const total = axis.step / 1000;
  const [size, name] =
    total % 86_400 === 0
      ? [86_400, "day"]
      : total % 3_600 === 0
        ? [3_600, "hour"]
        : total % 60 === 0
          ? [60, "minute"]
          : [1, "second"];
  const number = total / size;
  return number === 1 ? `a ${name}`.replace("a hour", "an hour") : `${number} ${name}s`;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const seconds = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = {
  local: new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" }),
  utc: new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" }),
};

function finished(bucket: RunBucket): number {
  return bucket.success + bucket.failed + bucket.cancelled;
}

function sameDay(one: number, other: number | undefined): boolean {
  return other !== undefined && new Date(one).toDateString() === new Date(other).toDateString();
}

function every<T>(all: T[], step: number): T[] {
  return all.filter((_, index) => index % Math.max(1, step) === 0);
}
