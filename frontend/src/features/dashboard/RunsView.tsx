import { Paper, SegmentedControl, Stack } from "@mantine/core";
import { IconChartBarOff } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { WorkflowMetrics } from "@/shared/api/schema";
import { count, percent } from "@/shared/format/amounts";
import { lastRange } from "@/shared/format/time-range";
import { duration } from "@/shared/format/times";
import { EmptyState } from "@/shared/ui/EmptyState";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import type { RunState } from "@/shared/ui/states";
import { DagTable } from "./DagTable";
import { runsOf } from "./drill-down";
import { FiguresSkeleton } from "./FiguresSkeleton";
import { DimWhileStale } from "./DimWhileStale";
import { knownCost } from "./known-cost";
import { runsQuery, type Scope } from "./queries";
import { RunsFigure } from "./RunsFigure";
import type { Measure } from "./search";
import { StatTile, StatTiles } from "./StatTile";

const MEASURE_LABELS: { value: Measure; label: string }[] = [
  { value: "runs", label: "Runs" },
  { value: "success", label: "Success rate" },
  { value: "tokens", label: "Tokens" },
  { value: "cost", label: "Cost" },
];

interface Props {
  scope: Scope;
  measure: Measure;
  onMeasure: (measure: Measure) => void;
}

/** Totals of runs, their course over time, and runs by workflow. */
export function RunsView({ scope, measure, onMeasure }: Props) {
  const query = useQuery(runsQuery(scope));
  if (query.isPending) return <FiguresSkeleton />;
  const metrics = query.data;
  return (
    <Stack gap="md">
      {query.isError ? <ProblemAlert error={query.error} onRetry={() => void query.refetch()} /> : null}
      {metrics ? (
        <DimWhileStale stale={query.isPlaceholderData}>
          <Totals metrics={metrics} scope={scope} />
          {metrics.total === 0 ? (
            <Paper>
              <EmptyState icon={IconChartBarOff} title={`No runs in ${lastRange(scope.range)}`}>
                {scope.dag || scope.user
                  ? "Remove a filter, or choose a longer time range."
                  : "Choose a longer time range, or run a workflow: it is counted immediately."}
              </EmptyState>
            </Paper>
          ) : (
            <>
              <RunsFigure metrics={metrics} measure={measure}>
                <SegmentedControl
                  size="xs"
                  aria-label="Metric"
                  data={MEASURE_LABELS}
                  value={measure}
                  onChange={(value) => onMeasure(value)}
                />
              </RunsFigure>
              <DagTable dags={metrics.by_dag} scope={scope} />
            </>
          )}
        </DimWhileStale>
      ) : null}
    </Stack>
  );
}

function Totals({ metrics, scope }: { metrics: WorkflowMetrics; scope: Scope }) {
  const { by_state: states, duration_seconds: took, queue_seconds: waited } = metrics;
  const tokens = metrics.input_tokens + metrics.output_tokens;
  const inState = (state: RunState, name: string) => (
    <Link to="/runs" search={runsOf({ ...scope, state: [state] })}>
      {count(states[state])} {name}
    </Link>
  );
  return (
    <StatTiles label="Totals">
      <StatTile
        label="Runs"
        value={
          <Link to="/runs" search={runsOf(scope)} style={{ color: "inherit", textDecoration: "none" }}>
            {count(metrics.total)}
          </Link>
        }
      >
        {inState("running", "running")} · {inState("queued", "queued")}
        {states.awaiting_input > 0 ? <> · {inState("awaiting_input", "awaiting input")}</> : null}
        <br />
        {rate(metrics.throughput_per_hour)} finished per hour
      </StatTile>
      <StatTile label="Success rate" value={percent(metrics.success_rate)}>
        {inState("failed", "failed")} · {inState("cancelled", "cancelled")}
        <br />
        of {count(metrics.finished)} finished
      </StatTile>
      <StatTile label="Median duration" value={duration(took.p50)}>
        p95 {duration(took.p95)} · p99 {duration(took.p99)}
        <br />
        in the queue {duration(waited.p50)} · p95 {duration(waited.p95)}
      </StatTile>
      <StatTile label="Tokens" value={count(tokens)}>
        {count(metrics.input_tokens)} in · {count(metrics.output_tokens)} out
      </StatTile>
      <StatTile label="Cost" value={knownCost(metrics.cost_usd, tokens)}>
        {priced(metrics, tokens)}
      </StatTile>
    </StatTiles>
  );
}

/** Explains which runs the cost includes. */
function priced(metrics: WorkflowMetrics, tokens: number): string {
  if (tokens === 0) return "No tokens were used.";
  if (metrics.cost_usd === null) return "No model has a known price.";
  const without = metrics.by_dag.filter((dag) => dag.cost_usd === null && dag.input_tokens + dag.output_tokens > 0);
  return without.length > 0
    ? `Excludes ${without.map((dag) => dag.dag_id).join(", ")}: price unknown.`
    : "Includes only models with known prices.";
}

function rate(perHour: number): string {
  return perHour.toLocaleString("en", { maximumFractionDigits: perHour >= 10 ? 0 : 1 });
}
