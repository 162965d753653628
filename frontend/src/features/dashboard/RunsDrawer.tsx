import { Drawer, Group, Skeleton, Stack, Text } from "@mantine/core";
import { IconListDetails } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { ExecutionOut } from "@/shared/api/schema";
import { lastRange } from "@/shared/format/time-range";
import { duration, elapsed, fullMoment, moment } from "@/shared/format/times";
import { EmptyState } from "@/shared/ui/EmptyState";
import { AnchorLink } from "@/shared/ui/links";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import rows from "@/shared/ui/rows.module.css";
import { StateBadge } from "@/shared/ui/StateBadge";
import { useNow } from "@/shared/ui/useNow";
import { categoryLook } from "./categories";
import { runsOf } from "./drill-down";
import { knownCost } from "./known-cost";
import { behindQuery, LISTED, type Scope } from "./queries";
import classes from "./RunsDrawer.module.css";
import type { Behind } from "./search";

interface Props {
  scope: Scope;
  behind: Behind;
  onClose: () => void;
}

/** The latest runs behind a figure. */
export function RunsDrawer({ scope, behind, onClose }: Props) {
  const query = useQuery(behindQuery(scope, behind));
  const runs = query.data?.executions;
  const now = useNow(1_000);
  return (
    <Drawer
      opened
      onClose={onClose}
      title={
        <Text fw={600} size="lg">
          {titleOf(behind)}
        </Text>
      }
      size="lg"
      closeButtonProps={{ "aria-label": "Close" }}
    >
      <Stack gap="sm">
        <Text c="dimmed" size="sm">
          {noteOf(behind)} Queued in {lastRange(scope.range)}
          {scope.dag ? `, of ${scope.dag}` : ""}
          {scope.user ? `, of ${scope.user}` : ""}; newest first.
        </Text>
        {query.isError ? <ProblemAlert error={query.error} onRetry={() => void query.refetch()} /> : null}
        {query.isPending ? (
          <Stack gap="xs" role="status" aria-busy="true" aria-label="Loading runs">
            {Array.from({ length: 6 }, (_, index) => (
              <Skeleton key={index} h={46} />
            ))}
          </Stack>
        ) : null}
        {runs?.length === 0 ? (
          <EmptyState icon={IconListDetails} title="No runs">
            The runs were queued earlier, or have been deleted since.
          </EmptyState>
        ) : null}
        <ul className={rows.list}>
          {runs?.map((run) => (
            <Row key={run.execution_id} run={run} now={now} />
          ))}
        </ul>
        {runs && runs.length >= LISTED ? (
          <Text size="sm" c="dimmed">
            Only the latest {LISTED} are shown.
          </Text>
        ) : null}
        {"agent" in behind ? null : (
          <AnchorLink to="/runs" search={runsOf({ ...scope, state: ["failed"] })} size="sm">
            All failed runs in this time range
          </AnchorLink>
        )}
      </Stack>
    </Drawer>
  );
}

function Row({ run, now }: { run: ExecutionOut; now: number }) {
  return (
    <li className={`${rows.row} ${rows.item}`}>
      <Group justify="space-between" wrap="nowrap" gap="sm">
        <div className={classes.name}>
          <Link
            to="/runs/$dagId/$runId"
            params={{ dagId: run.dag_id, runId: run.dag_run_id }}
            className={rows.link}
            aria-label={`${run.dag_id}, run ${run.dag_run_id}`}
          >
            {run.dag_id}
          </Link>
          <Text size="xs" c="dimmed" className="mono" truncate>
            {run.dag_run_id}
          </Text>
        </div>
        <div className={classes.facts}>
          <StateBadge state={run.state} />
          <Text size="xs" c="dimmed" className="tabular" title={fullMoment(run.queued_at)}>
            {moment(run.queued_at, now)} · {duration(elapsed(run.started_at, run.finished_at, now))} ·{" "}
            {knownCost(run.cost_usd, run.usage.input_tokens + run.usage.output_tokens)}
          </Text>
        </div>
      </Group>
    </li>
  );
}

function titleOf(behind: Behind): string {
  if ("agent" in behind) return `Runs with ${behind.agent}`;
  if ("errorAgent" in behind) return `Runs with an error in ${behind.errorAgent}`;
  return `Runs with errors: ${categoryLook(behind.error).label}`;
}

function noteOf(behind: Behind): string {
  if ("agent" in behind) return "With any model.";
  return `${"error" in behind ? categoryLook(behind.error).meaning : ""} Includes runs that recovered.`.trim();
}
