import { cost } from "@/shared/format/amounts";

/** A cost as it is shown: null means that no price is known, which is never shown as if it were nothing. */
export function knownCost(value: number | null, tokens: number): string {
  return value === null ? (tokens > 0 ? "unknown" : "–") : cost(value);
}
