import { Paper, Stack, Text } from "@mantine/core";
import { IconRobotOff } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { count, percent } from "@/shared/format/amounts";
import { lastRange } from "@/shared/format/time-range";
import { EmptyState } from "@/shared/ui/EmptyState";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { AgentsTable } from "./AgentsTable";
import { FiguresSkeleton } from "./FiguresSkeleton";
import { DimWhileStale } from "./DimWhileStale";
import { knownCost } from "./known-cost";
import { agentsQuery, type Scope } from "./queries";
import { StatTile, StatTiles } from "./StatTile";

interface Props {
  scope: Scope;
  sort: string | undefined;
  onSort: (sort: string) => void;
}

/** Agents' performance, by agent and model. */
export function AgentsView({ scope, sort, onSort }: Props) {
  const query = useQuery(agentsQuery(scope));
  if (query.isPending) return <FiguresSkeleton tiles={4} />;
  const agents = query.data?.agents;
  return (
    <Stack gap="md">
      {query.isError ? <ProblemAlert error={query.error} onRetry={() => void query.refetch()} /> : null}
      {agents?.length === 0 ? (
        <Paper>
          <EmptyState icon={IconRobotOff} title={`No agents ran in ${lastRange(scope.range)}`}>
            {scope.dag || scope.user
              ? "Remove a filter, or choose a longer time range."
              : "Choose a longer time range, or run a workflow: its agents are counted immediately."}
          </EmptyState>
        </Paper>
      ) : null}
      {agents && agents.length > 0 ? (
        <DimWhileStale stale={query.isPlaceholderData}>
          <StatTiles label="Totals">
            <StatTile label="Agent runs" value={count(total(agents, (row) => row.runs))}>
              Each try of a task counts as a run of its agents.
            </StatTile>
            <StatTile label="Success rate" value={percent(successRate(agents))}>
              {count(total(agents, (row) => row.failed))} failed · {count(total(agents, (row) => row.cancelled))}{" "}
              cancelled
            </StatTile>
            <StatTile label="Retries" value={count(total(agents, (row) => row.retries))}>
              {count(total(agents, (row) => row.fallbacks))} fallbacks to another model
            </StatTile>
            <StatTile label="Cost" value={knownCost(knownSum(agents), total(agents, tokensOf))}>
              {unpriced(agents)}
            </StatTile>
          </StatTiles>
          <AgentsTable agents={agents} sort={sort} onSort={onSort} />
          {agents.length >= 200 ? (
            <Text size="sm" c="dimmed">
              Only the 200 agents with the most runs are shown.
            </Text>
          ) : null}
        </DimWhileStale>
      ) : null}
    </Stack>
  );
}

type Agent = Parameters<typeof AgentsTable>[0]["agents"][number];

function tokensOf(row: Agent): number {
  return row.input_tokens + row.output_tokens;
}

function total(agents: Agent[], value: (row: Agent) => number): number {
  return agents.reduce((sum, row) => sum + value(row), 0);
}

function successRate(agents: Agent[]): number | null {
  const finished = total(agents, (row) => row.finished);
  return finished > 0 ? total(agents, (row) => row.success) / finished : null;
}

function knownSum(agents: Agent[]): number | null {
  const known = agents.filter((row) => row.cost_usd !== null);
  return known.length > 0 ? total(known, (row) => row.cost_usd ?? 0) : null;
}

function unpriced(agents: Agent[]): string {
  const models = new Set(agents.filter((row) => row.cost_usd === null && tokensOf(row) > 0).map((row) => row.model));
  return models.size > 0
    ? `Excludes ${[...models].map((model) => model ?? "an unnamed model").join(", ")}: price unknown.`
    : "All models have known prices.";
}
