import { RUN_STATES, type RunState } from "@/shared/ui/states";

/** The filters of the run list in the URL. */
export interface RunsSearch {
  dag?: string;
  state?: RunState[];
  user?: string;
  /** The time range: 1h, 24h, 7d, 30d. */
  since?: Since;
}

export const SINCE = { "1h": 3_600, "24h": 86_400, "7d": 7 * 86_400, "30d": 30 * 86_400 } as const;
export type Since = keyof typeof SINCE;

export function runsSearch(search: Record<string, unknown>): RunsSearch {
  const { dag, state, user, since } = search;
  const given = Array.isArray(state) ? state : [state];
  const states = RUN_STATES.filter((known) => given.includes(known));
  return {
    ...(typeof dag === "string" && dag ? { dag } : {}),
    ...(states.length > 0 ? { state: states } : {}),
    ...(typeof user === "string" && user ? { user } : {}),
    ...(typeof since === "string" && since in SINCE ? { since: since as Since } : {}),
  };
}
