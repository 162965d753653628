/** Formats times, in the reader's time zone. */

const NONE = "–";
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat("en-GB", {
  dateStyle: "medium",
  timeStyle: "long",
});

/** Seconds as a duration: 0.42 s, 12.3 s, 4 min 05 s, 3 h 12 min, 2 d 4 h. */
export function duration(seconds: number | null | undefined): string {
  if (seconds == null || !Number.isFinite(seconds)) return NONE;
  const value = Math.max(0, seconds);
  if (value < 1) return `${value.toFixed(2)} s`;
  if (value < 59.95) return `${value.toFixed(1)} s`;
  const total = Math.round(value);
  const minutes = Math.floor(total / 60);
  if (minutes < 60) return `${minutes} min ${String(total % 60).padStart(2, "0")} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** Milliseconds as a duration. */
export function latency(milliseconds: number | null | undefined): string {
  if (milliseconds == null) return NONE;
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : duration(milliseconds / 1000);
}

/** Seconds from `start` to `end`, or to `now` (milliseconds) if there is no end yet. */
export function elapsed(start: string | null | undefined, end: string | null | undefined, now: number): number | null {
  if (!start) return null;
  return Math.max(0, ((end ? Date.parse(end) : now) - Date.parse(start)) / 1000);
}

/** A time today as 14:03:22, on another day with the date, in another year with the year. */
export function moment(time: string | null | undefined, now: number = Date.now()): string {
  if (!time) return NONE;
  const at = new Date(time);
  const today = new Date(now);
  if (at.toDateString() === today.toDateString()) return clock.format(at);
  const year = at.getFullYear() === today.getFullYear() ? "" : ` ${at.getFullYear()}`;
  return `${day.format(at)}${year}, ${clock.format(at).slice(0, 5)}`;
}

/** A complete time, for tooltips. */
export function fullMoment(time: string | null | undefined): string {
  return time ? full.format(new Date(time)) : "";
}

/** How long ago: just now, 12 s ago, 5 min ago, 3 h ago, 2 d ago. */
export function ago(time: string | null | undefined, now: number): string {
  if (!time) return NONE;
  const seconds = Math.max(0, (now - Date.parse(time)) / 1000);
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}
