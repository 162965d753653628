import { Box, Checkbox, Progress, Table, Text, Tooltip, VisuallyHidden } from "@mantine/core";
import { Link } from "@tanstack/react-router";
import type { ExecutionOut } from "@/shared/api/schema";
import { cost, count } from "@/shared/format/amounts";
import { duration, elapsed, fullMoment, moment } from "@/shared/format/times";
import { cell, DataTable, TablePanel } from "@/shared/ui/DataTable";
import rows from "@/shared/ui/rows.module.css";
import { StateBadge } from "@/shared/ui/StateBadge";
import { isActive, lookOf, progressLabel } from "@/shared/ui/states";
import { useNow } from "@/shared/ui/useNow";
import classes from "./RunsTable.module.css";

interface Props {
  runs: ExecutionOut[];
  /** The runs that are chosen to be compared, each `<dag_id>/<dag_run_id>`. */
  chosen: readonly string[];
  onChoose: (run: string, chosen: boolean) => void;
}

/** Runs as rows; each row links to the run's page. */
export function RunsTable({ runs, chosen, onChoose }: Props) {
  const now = useNow(
    1000,
    runs.some((run) => isActive(run.state)),
  );
  return (
    <TablePanel>
      <DataTable
        minWidth={940}
        head={
          <>
            <Table.Th w={40} visibleFrom="sm">
              <VisuallyHidden>Compare</VisuallyHidden>
            </Table.Th>
            <Table.Th>State</Table.Th>
            <Table.Th>Run</Table.Th>
            <Table.Th w={150} visibleFrom="sm">
              Progress
            </Table.Th>
            <Table.Th visibleFrom="sm">User</Table.Th>
            <Table.Th>Started</Table.Th>
            <Table.Th ta="right" visibleFrom="sm">
              Duration
            </Table.Th>
            <Table.Th ta="right" visibleFrom="sm">
              Tokens
            </Table.Th>
            <Table.Th ta="right" visibleFrom="sm">
              Cost
            </Table.Th>
          </>
        }
      >
        {runs.map((run) => (
          <Row key={run.execution_id} run={run} now={now} chosen={chosen} onChoose={onChoose} />
        ))}
      </DataTable>
    </TablePanel>
  );
}

type RowProps = Omit<Props, "runs"> & { run: ExecutionOut; now: number };

function Row({ run, now, chosen, onChoose }: RowProps) {
  const name = `${run.dag_id}/${run.dag_run_id}`;
  const began = run.started_at ?? run.queued_at;
  const took = duration(elapsed(run.started_at, run.finished_at, now));
  return (
    <Table.Tr className={rows.row}>
      <Table.Td visibleFrom="sm">
        <Checkbox
          aria-label={`Compare run ${run.dag_run_id}`}
          checked={chosen.includes(name)}
          onChange={(event) => onChoose(name, event.currentTarget.checked)}
          className={classes.choice}
        />
      </Table.Td>
      <Table.Td>
        <Box component="span" visibleFrom="sm">
          <StateBadge state={run.state} />
        </Box>
        <Box component="span" hiddenFrom="sm">
          <StateBadge state={run.state} iconOnly />
        </Box>
      </Table.Td>
      <Table.Td className={cell.wide}>
        <Link
          to="/runs/$dagId/$runId"
          params={{ dagId: run.dag_id, runId: run.dag_run_id }}
          className={rows.link}
          aria-label={`${run.dag_id}, run ${run.dag_run_id}`}
        >
          {run.dag_id}
        </Link>
        {run.attempt > 1 ? (
          <Text component="span" size="xs" c="dimmed" ml={8}>
            attempt {run.attempt}
          </Text>
        ) : null}
        <Text size="xs" c="dimmed" className="mono" truncate>
          {run.dag_run_id}
        </Text>
      </Table.Td>
      <Table.Td visibleFrom="sm">
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
              {progressLabel(run.state, run.progress)}
            </Text>
          </div>
        </Tooltip>
      </Table.Td>
      <Table.Td visibleFrom="sm">
        {run.user_id ?? (
          <Text component="span" c="dimmed" inherit>
            {run.run_type ?? "–"}
          </Text>
        )}
      </Table.Td>
      <Table.Td title={fullMoment(began)}>
        {moment(began, now)}
        <Text size="xs" c="dimmed" hiddenFrom="sm">
          {took}
        </Text>
      </Table.Td>
      <Table.Td ta="right" visibleFrom="sm">
        {took}
      </Table.Td>
      <Table.Td ta="right" visibleFrom="sm">
        {count(run.usage.input_tokens + run.usage.output_tokens)}
      </Table.Td>
      <Table.Td ta="right" visibleFrom="sm">
        {cost(run.cost_usd)}
      </Table.Td>
    </Table.Tr>
  );
}
