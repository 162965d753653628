import { secondsOf } from "@/shared/format/time-range";

/** The parts of the dashboard. */
export const VIEWS = ["runs", "agents", "errors", "health"] as const;
export type View = (typeof VIEWS)[number];

/** What the figure over time shows. */
export const MEASURES = ["runs", "success", "tokens", "cost"] as const;
export type Measure = (typeof MEASURES)[number];

/** The runs behind a figure: those of an agent, or those that met an error of a kind or in an agent. */
export type Behind = { agent: string } | { error: string } | { errorAgent: string };

/** The dashboard as it stands in the address. */
export interface DashboardSearch {
  /** How far back; without it the range that the user prefers. */
  range?: string;
  dag?: string;
  user?: string;
  /** Without it: runs. */
  view?: View;
  /** Without it: runs. */
  measure?: Measure;
  /** The column that the agents are sorted by, with a minus: the largest first. */
  sort?: string;
  /** Whose runs are listed beside it. */
  behind?: Behind;
}

export function dashboardSearch(search: Record<string, unknown>): DashboardSearch {
  const { range, dag, user, view, measure, sort } = search;
  const behind = behindOf(search.behind);
  return {
    ...(typeof range === "string" && secondsOf(range) !== null ? { range } : {}),
    ...(isName(dag) ? { dag } : {}),
    ...(isName(user) ? { user } : {}),
    ...(isOneOf(VIEWS, view) && view !== "runs" ? { view } : {}),
    ...(isOneOf(MEASURES, measure) && measure !== "runs" ? { measure } : {}),
    ...(typeof sort === "string" && /^-?[a-z0-9_]+$/.test(sort) ? { sort } : {}),
    ...(behind ? { behind } : {}),
  };
}

function behindOf(given: unknown): Behind | null {
  if (typeof given !== "object" || given === null) return null;
  const { agent, error, errorAgent } = given as Record<string, unknown>;
  if (isName(agent)) return { agent };
  if (isName(error)) return { error };
  return isName(errorAgent) ? { errorAgent } : null;
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value !== "" && value.length <= 250;
}

function isOneOf<T extends string>(known: readonly T[], value: unknown): value is T {
  return known.includes(value as T);
}
