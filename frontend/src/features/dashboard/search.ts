import { secondsOf } from "@/shared/format/time-range";

/** The dashboard's tabs. */
export const VIEWS = ["runs", "agents", "errors", "health"] as const;
export type View = (typeof VIEWS)[number];

/** The metric of the figure over time. */
export const MEASURES = ["runs", "success", "tokens", "cost"] as const;
export type Measure = (typeof MEASURES)[number];

/** The runs behind a figure: those of an agent, or those with an error of a category or in an agent. */
export type Behind = { agent: string } | { error: string } | { errorAgent: string };

/** The dashboard's state in the URL. */
export interface DashboardSearch {
  /** The time range; by default the one that the user prefers. */
  range?: string;
  dag?: string;
  user?: string;
  /** Default: runs. */
  view?: View;
  /** Default: runs. */
  measure?: Measure;
  /** The column that agents are sorted by; with a minus, descending. */
  sort?: string;
  /** The runs listed in the drawer. */
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
