import type { AgentMetrics } from "@/shared/api/schema";

/** The columns that agents can be sorted by. */
export const COLUMNS = {
  agent: (row) => row.agent,
  model: (row) => row.model,
  runs: (row) => row.runs,
  success: (row) => row.success_rate,
  p50: (row) => row.latency_ms.p50,
  p95: (row) => row.latency_ms.p95,
  p99: (row) => row.latency_ms.p99,
  tokens: (row) => row.input_tokens + row.output_tokens,
  cost: (row) => row.cost_usd,
  retries: (row) => row.retries,
  fallbacks: (row) => row.fallbacks,
} satisfies Record<string, (row: AgentMetrics) => string | number | null>;

export type Column = keyof typeof COLUMNS;

export interface Sorting {
  column: Column;
  descending: boolean;
}

/** Reads the order from the URL: `cost`, or `-cost` for descending. Without a valid value it is `-runs`. */
export function sortingOf(text: string | undefined): Sorting {
  const descending = text?.startsWith("-") ?? true;
  const column = text?.replace("-", "") ?? "";
  return column in COLUMNS ? { column: column as Column, descending } : { column: "runs", descending: true };
}

/** The order after a click on a column: names ascending and figures descending first, then the other way round. */
export function sortedBy(column: Column, now: Sorting): string {
  const names = column === "agent" || column === "model";
  const descending = now.column === column ? !now.descending : !names;
  return descending ? `-${column}` : column;
}

/** Sorts agents; unknown values come last in either direction. */
export function sorted(rows: readonly AgentMetrics[], { column, descending }: Sorting): AgentMetrics[] {
  const value: (row: AgentMetrics) => string | number | null = COLUMNS[column];
  return rows.toSorted((one, other) => {
    const [left, right] = [value(one), value(other)];
    if (left === null || right === null) return Number(left === null) - Number(right === null);
    const order = typeof left === "number" ? left - Number(right) : left.localeCompare(String(right));
    return descending ? -order : order;
  });
}
