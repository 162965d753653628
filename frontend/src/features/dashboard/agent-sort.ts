import type { AgentMetrics } from "@/shared/api/schema";

/** What agents can be sorted by. */
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

/** What an address says: `cost`, or `-cost` for the largest first. Without it, or when it says nonsense: `-runs`. */
export function sortingOf(text: string | undefined): Sorting {
  const descending = text?.startsWith("-") ?? true;
  const column = text?.replace("-", "") ?? "";
  return column in COLUMNS ? { column: column as Column, descending } : { column: "runs", descending: true };
}

/** The address for a click on a column: names begin with the smallest, figures with the largest; then the other way. */
export function sortedBy(column: Column, now: Sorting): string {
  const names = column === "agent" || column === "model";
  const descending = now.column === column ? !now.descending : !names;
  return descending ? `-${column}` : column;
}

/** Sorted; what is not known comes last, either way. */
export function sorted(rows: readonly AgentMetrics[], { column, descending }: Sorting): AgentMetrics[] {
  const value: (row: AgentMetrics) => string | number | null = COLUMNS[column];
  return rows.toSorted((one, other) => {
    const [left, right] = [value(one), value(other)];
    if (left === null || right === null) return Number(left === null) - Number(right === null);
    const order = typeof left === "number" ? left - Number(right) : left.localeCompare(String(right));
    return descending ? -order : order;
  });
}
