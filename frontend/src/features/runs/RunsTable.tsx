import { Paper, Progress, ScrollArea, Table, Text, Tooltip } from "@mantine/core";
import { Link } from "@tanstack/react-router";
import type { ExecutionOut } from "@/shared/api/schema";
import { cost, count } from "@/shared/format/amounts";
import { duration, elapsed, fullMoment, moment } from "@/shared/format/times";
import { StateBadge } from "@/shared/ui/StateBadge";
import { isActive, lookOf } from "@/shared/ui/states";
import { useNow } from "@/shared/ui/useNow";
import classes from "./RunsTable.module.css";

/** Runs as rows; each is a link to its page. */
export function RunsTable({ runs }: { runs: ExecutionOut[] }) {
  const now = useNow(
    1000,
    runs.some((run) => isActive(run.state)),
  );
  return (
    <Paper style={{ overflow: "hidden" }}>
      <ScrollArea type="auto">
        <Table miw={940} className={classes.table}>
          <Table.Thead>
            <Table.Tr>
              <Table.Th w={130}>State</Table.Th>
              <Table.Th>Run</Table.Th>
              <Table.Th w={150}>Progress</Table.Th>
              <Table.Th>User</Table.Th>
              <Table.Th>Started</Table.Th>
              <Table.Th ta="right">Duration</Table.Th>
              <Table.Th ta="right">Tokens</Table.Th>
              <Table.Th ta="right">Cost</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {runs.map((run) => (
              <Row key={run.execution_id} run={run} now={now} />
            ))}
          </Table.Tbody>
        </Table>
      </ScrollArea>
    </Paper>
  );
}

function Row({ run, now }: { run: ExecutionOut; now: number }) {
  const began = run.started_at ?? run.queued_at;
  return (
    <Table.Tr className={classes.row}>
      <Table.Td>
        <StateBadge state={run.state} />
      </Table.Td>
      <Table.Td className={classes.run}>
        <Link
          to="/runs/$dagId/$runId"
          params={{ dagId: run.dag_id, runId: run.dag_run_id }}
          className={classes.link}
          aria-label={`${run.dag_id}, run ${run.dag_run_id}`}
        >
          {run.dag_id}
        </Link>
        <Text size="xs" c="dimmed" className="mono" truncate maw={300}>
          {run.dag_run_id}
          {run.attempt > 1 ? ` · attempt ${run.attempt}` : ""}
        </Text>
      </Table.Td>
      <Table.Td>
        <Tooltip label={`${run.tasks_done} of ${run.tasks_total} tasks`}>
          <div className={classes.progress}>
            <Progress
              value={run.progress}
              size={5}
              color={`var(--state-${lookOf(run.state).tone})`}
              aria-label="Progress"
              style={{ flex: 1 }}
            />
            <Text size="xs" c="dimmed" w={36} ta="right" className="tabular">
              {run.progress} %
            </Text>
          </div>
        </Tooltip>
      </Table.Td>
      <Table.Td>
        {run.user_id ?? (
          <Text component="span" c="dimmed" inherit>
            {run.run_type ?? "–"}
          </Text>
        )}
      </Table.Td>
      <Table.Td title={fullMoment(began)}>{moment(began, now)}</Table.Td>
      <Table.Td ta="right">{duration(elapsed(run.started_at, run.finished_at, now))}</Table.Td>
      <Table.Td ta="right">{count(run.usage.input_tokens + run.usage.output_tokens)}</Table.Td>
      <Table.Td ta="right">{cost(run.cost_usd)}</Table.Td>
    </Table.Tr>
  );
}
