import { cost } from "@/shared/format/amounts";

/** Formats a cost. Null means that the price is unknown, which is never shown as zero. */
export function knownCost(value: number | null, tokens: number): string {
  return value === null ? (tokens > 0 ? "unknown" : "–") : cost(value);
}
