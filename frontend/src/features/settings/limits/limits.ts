import type { LimitBody, LimitOut } from "@/shared/api/schema";
import { bytes, cost, count, number } from "@/shared/format/amounts";

export type Kind = LimitBody["kind"];
export type SubjectType = "everybody" | "each_user" | "user" | "role" | "team";

export const KINDS: { value: Kind; label: string; timed: boolean }[] = [
  { value: "cost_usd", label: "Cost in US dollars", timed: true },
  { value: "tokens", label: "Tokens", timed: true },
  { value: "runs_at_once", label: "Runs at once", timed: false },
  { value: "upload_bytes", label: "Bytes of uploads", timed: false },
  { value: "batch_size", label: "Runs in a batch", timed: false },
  { value: "streams", label: "Open streams of each user", timed: false },
];

export const SUBJECTS: { value: SubjectType; label: string; named: boolean }[] = [
  { value: "each_user", label: "Each user", named: false },
  { value: "user", label: "A user", named: true },
  { value: "role", label: "A role", named: true },
  { value: "team", label: "A team", named: true },
  { value: "everybody", label: "Everybody together", named: false },
];

/** What a limit is of: "Tokens a day". */
export function kindOf(limit: Pick<LimitOut, "kind" | "period">): string {
  const known = KINDS.find((one) => one.value === limit.kind)?.label ?? limit.kind;
  return limit.period ? `${known} a ${limit.period}` : known;
}

/** Whom a limit is for: "the role User". */
export function subjectOf(subject: string): string {
  if (subject === "everybody") return "everybody together";
  if (subject === "each_user") return "each user";
  const [type, ...name] = subject.split(":");
  return `the ${type} ${name.join(":")}`;
}

/** An amount of a kind, as people read it. */
export function amountOf(kind: Kind, value: number | null): string {
  if (kind === "cost_usd") return cost(value);
  if (kind === "upload_bytes") return bytes(value);
  return value !== null && Math.abs(value) < 1e6 ? number(value) : count(value);
}

/** The used share of a limit in percent, from 0 to 100; null where nothing is counted. */
export function shareOf(limit: Pick<LimitOut, "used" | "limit">): number | null {
  if (limit.used === null) return null;
  return limit.limit > 0 ? Math.min(100, (limit.used / limit.limit) * 100) : 100;
}

/** The id of a new limit, which is one for each subject, kind and period. */
export function idOf(body: LimitBody): string {
  const parts = [body.subject, body.kind, body.period].filter(Boolean).join(".");
  return parts.replace(/[^A-Za-z0-9._:@-]/g, "_").slice(0, 100);
}
