import { keepPreviousData, queryOptions } from "@tanstack/react-query";
import { answer, api } from "@/shared/api/client";
import { problemOf } from "@/shared/api/problem";
import type { SystemHealth } from "@/shared/api/schema";
import { DEFAULT_RANGE, secondsOf } from "@/shared/format/time-range";
import { CATEGORIES } from "./categories";
import type { Behind } from "./search";

/** What the figures cover. */
export interface Scope {
  range: string;
  dag?: string | undefined;
  user?: string | undefined;
}

/** The maximum of runs listed behind a figure; the run list has the rest. */
export const LISTED = 25;

const HEALTH = 15_000;

export const runsQuery = (scope: Scope) =>
  queryOptions({
    queryKey: ["monitoring", "runs", scope],
    queryFn: () => answer(api.GET("/monitoring/workflow-metrics", { params: { query: queryOf(scope) } })),
    ...refreshed(scope),
  });

export const agentsQuery = (scope: Scope) =>
  queryOptions({
    queryKey: ["monitoring", "agents", scope],
    queryFn: () => answer(api.GET("/monitoring/agent-performance", { params: { query: queryOf(scope) } })),
    ...refreshed(scope),
  });

export const errorsQuery = (scope: Scope) =>
  queryOptions({
    queryKey: ["monitoring", "errors", scope],
    queryFn: () => answer(api.GET("/monitoring/error-distribution", { params: { query: queryOf(scope) } })),
    ...refreshed(scope),
  });

export const healthQuery = queryOptions({
  queryKey: ["monitoring", "health"],
  queryFn: async (): Promise<SystemHealth> => {
    const { data, error, response } = await api.GET("/monitoring/system-health");
    if (data) return data;
    // An unhealthy component is a valid response, not a failed request.
    if (isHealth(error)) return error;
    throw problemOf(response, error);
  },
  refetchInterval: HEALTH,
});

/** The latest runs behind a figure. */
export const behindQuery = (scope: Scope, behind: Behind) =>
  queryOptions({
    queryKey: ["monitoring", "behind", scope, behind],
    queryFn: () =>
      answer(
        api.GET("/workflow-status", {
          params: {
            query: {
              limit: LISTED,
              since: new Date(Date.now() - (secondsOf(scope.range) ?? 0) * 1000).toISOString(),
              ...(scope.dag ? { dag_id: scope.dag } : {}),
              ...(scope.user ? { user_id: scope.user } : {}),
              ...filterOf(behind),
            },
          },
        }),
      ),
  });

/** Milliseconds between two reads: figures over an hour change every second, figures over 90 days hardly move. */
export function refreshEvery(range: string): number {
  const seconds = secondsOf(range) ?? secondsOf(DEFAULT_RANGE) ?? 0;
  return Math.min(120_000, Math.max(10_000, Math.round(seconds / 15_000) * 5_000));
}

function filterOf(behind: Behind) {
  if ("agent" in behind) return { agent: behind.agent };
  if ("errorAgent" in behind) return { error_agent: behind.errorAgent };
  const category = CATEGORIES.find((known) => known === behind.error);
  return category ? { error_category: category } : {};
}

function queryOf({ range, dag, user }: Scope) {
  return { time_range: range, ...(dag ? { dag_id: dag } : {}), ...(user ? { user_id: user } : {}) };
}

function refreshed(scope: Scope) {
  return { refetchInterval: refreshEvery(scope.range), placeholderData: keepPreviousData };
}

function isHealth(body: unknown): body is SystemHealth {
  return typeof body === "object" && body !== null && "components" in body;
}
