import { type Action, ACTIONS, type Outcome, OUTCOMES } from "./actions";

/** Hours by the name of a time range. */
export const SINCE = { "1h": 1, "24h": 24, "7d": 7 * 24, "30d": 30 * 24 } as const;
export type Since = keyof typeof SINCE;

/** The filters of the audit log in the URL. */
export interface AuditSearch {
  action?: Action;
  outcome?: Outcome;
  user?: string;
  since?: Since;
}

export function auditSearch(search: Record<string, unknown>): AuditSearch {
  const { action, outcome, user, since } = search;
  return {
    ...(typeof action === "string" && Object.hasOwn(ACTIONS, action) ? { action: action as Action } : {}),
    ...(typeof outcome === "string" && Object.hasOwn(OUTCOMES, outcome) ? { outcome: outcome as Outcome } : {}),
    ...(typeof user === "string" && user ? { user } : {}),
    ...(typeof since === "string" && Object.hasOwn(SINCE, since) ? { since: since as Since } : {}),
  };
}
