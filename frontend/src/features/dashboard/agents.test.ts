import { describe, expect, it } from "vitest";
import type { AgentMetrics } from "@/shared/api/schema";
import { sorted, sortedBy, sortingOf } from "./agent-sort";
import { coloursOf } from "./category-colours";
import { knownCost } from "./known-cost";

const agent = (name: string, more: Partial<AgentMetrics> = {}): AgentMetrics => ({
  agent: name,
  type: "vision",
  model: null,
  runs: 1,
  finished: 1,
  success: 1,
  failed: 0,
  cancelled: 0,
  success_rate: 1,
  latency_ms: { p50: null, p95: null, p99: null },
  retries: 0,
  fallbacks: 0,
  input_tokens: 0,
  output_tokens: 0,
  cost_usd: null,
  ...more,
});
const names = (rows: AgentMetrics[]) => rows.map((row) => row.agent).join("");

describe("sorting agents", () => {
  const rows = [agent("b", { cost_usd: 2, runs: 5 }), agent("a", { runs: 7 }), agent("c", { cost_usd: 3, runs: 6 })];

  it("defaults to the most runs first", () => {
    expect(names(sorted(rows, sortingOf(undefined)))).toBe("acb");
    expect(names(sorted(rows, sortingOf("nonsense")))).toBe("acb");
  });

  it("puts unknown values last in either direction", () => {
    expect(names(sorted(rows, sortingOf("-cost")))).toBe("cba");
    expect(names(sorted(rows, sortingOf("cost")))).toBe("bca");
  });

  it("reverses at the second click", () => {
    expect(sortedBy("cost", sortingOf(undefined))).toBe("-cost");
    expect(sortedBy("cost", sortingOf("-cost"))).toBe("cost");
    expect(sortedBy("agent", sortingOf("-cost"))).toBe("agent");
  });
});

it("shows an unknown price as unknown, and no cost without tokens", () => {
  expect(knownCost(null, 10)).toBe("unknown");
  expect(knownCost(null, 0)).toBe("–");
  expect(knownCost(0, 10)).toBe("$0");
});

it("gives each error category its own colour, and frequent ones a fixed one", () => {
  const colours = coloursOf(["auth", "rate_limit", "tool", "server", "quota", "input"]);
  expect(Object.keys(colours)).toEqual(["auth", "rate_limit", "tool", "server", "quota"]);
  expect(new Set(Object.values(colours)).size).toBe(5);
  expect(colours.rate_limit).toBe(coloursOf(["rate_limit"]).rate_limit);
});
