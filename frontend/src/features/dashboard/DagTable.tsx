import { Table, Tooltip, VisuallyHidden } from "@mantine/core";
import { IconFilter } from "@tabler/icons-react";
import { Link } from "@tanstack/react-router";
import type { DagMetrics } from "@/shared/api/schema";
import { count } from "@/shared/format/amounts";
import { duration } from "@/shared/format/times";
import { cell, DataTable, TablePanel } from "@/shared/ui/DataTable";
import { IconLink } from "@/shared/ui/links";
import rows from "@/shared/ui/rows.module.css";
import { runsOf } from "./drill-down";
import classes from "./figures.module.css";
import { knownCost } from "./known-cost";
import type { Scope } from "./queries";
import { RateCell } from "./RateCell";
import { dashboardSearch } from "./search";

/** Runs by workflow; each row opens the workflow's runs. */
export function DagTable({ dags, scope }: { dags: DagMetrics[]; scope: Scope }) {
  return (
    <TablePanel title="By workflow">
      <DataTable
        minWidth={860}
        head={
          <>
            <Table.Th>Workflow</Table.Th>
            <Table.Th ta="right">Runs</Table.Th>
            <Table.Th ta="right">Success rate</Table.Th>
            <Table.Th ta="right" visibleFrom="sm">
              Failed
            </Table.Th>
            <Table.Th ta="right" visibleFrom="sm">
              p50
            </Table.Th>
            <Table.Th ta="right" visibleFrom="sm">
              p95
            </Table.Th>
            <Table.Th ta="right" visibleFrom="sm">
              Tokens
            </Table.Th>
            <Table.Th ta="right">Cost</Table.Th>
            <Table.Th w={44} visibleFrom="sm">
              <VisuallyHidden>Filter</VisuallyHidden>
            </Table.Th>
          </>
        }
      >
        {dags.map((dag) => (
          <Table.Tr key={dag.dag_id} className={rows.row}>
            <Table.Td className={cell.wide}>
              <Link to="/runs" search={runsOf({ ...scope, dag: dag.dag_id })} className={rows.link}>
                {dag.dag_id}
              </Link>
            </Table.Td>
            <Table.Td ta="right">{count(dag.total)}</Table.Td>
            <Table.Td ta="right">
              <RateCell rate={dag.success_rate} />
            </Table.Td>
            <Table.Td ta="right" visibleFrom="sm">
              {count(dag.failed)}
            </Table.Td>
            <Table.Td ta="right" visibleFrom="sm">
              {duration(dag.duration_p50)}
            </Table.Td>
            <Table.Td ta="right" visibleFrom="sm">
              {duration(dag.duration_p95)}
            </Table.Td>
            <Table.Td ta="right" visibleFrom="sm">
              {count(dag.input_tokens + dag.output_tokens)}
            </Table.Td>
            <Table.Td ta="right" className={dag.cost_usd === null ? classes.unknown : undefined}>
              {knownCost(dag.cost_usd, dag.input_tokens + dag.output_tokens)}
            </Table.Td>
            <Table.Td visibleFrom="sm">
              {scope.dag === dag.dag_id ? null : (
                <Tooltip label="Only this workflow">
                  <IconLink
                    to="/dashboard"
                    search={(known) => dashboardSearch({ ...known, dag: dag.dag_id })}
                    variant="subtle"
                    color="gray"
                    size="sm"
                    aria-label={`Only ${dag.dag_id}`}
                  >
                    <IconFilter size={15} aria-hidden />
                  </IconLink>
                </Tooltip>
              )}
            </Table.Td>
          </Table.Tr>
        ))}
      </DataTable>
    </TablePanel>
  );
}
