import { Table, Text, UnstyledButton } from "@mantine/core";
import { IconArrowDown, IconArrowUp } from "@tabler/icons-react";
import { Link } from "@tanstack/react-router";
import type { AgentMetrics } from "@/shared/api/schema";
import { count } from "@/shared/format/amounts";
import { latency } from "@/shared/format/times";
import { DataTable, TablePanel } from "@/shared/ui/DataTable";
import rows from "@/shared/ui/rows.module.css";
import { type Column, sorted, sortedBy, sortingOf } from "./agent-sort";
import classes from "./figures.module.css";
import { knownCost } from "./known-cost";
import { RateCell } from "./RateCell";
import { dashboardSearch } from "./search";

/** `always` marks the columns that fit on a phone. */
const HEADS: { column: Column; label: string; always?: true }[] = [
  { column: "agent", label: "Agent", always: true },
  { column: "model", label: "Model" },
  { column: "runs", label: "Runs", always: true },
  { column: "success", label: "Success rate", always: true },
  { column: "p50", label: "p50" },
  { column: "p95", label: "p95", always: true },
  { column: "p99", label: "p99" },
  { column: "tokens", label: "Tokens" },
  { column: "cost", label: "Cost" },
  { column: "retries", label: "Retries" },
  { column: "fallbacks", label: "Fallbacks" },
];

interface Props {
  agents: AgentMetrics[];
  sort: string | undefined;
  onSort: (sort: string) => void;
}

/** Agents as rows; each row opens the runs that the agent worked in. */
export function AgentsTable({ agents, sort, onSort }: Props) {
  const sorting = sortingOf(sort);
  return (
    <TablePanel>
      <DataTable
        minWidth={1060}
        aria-label="Agents"
        head={HEADS.map(({ column, label, always }, index) => {
          const by = sorting.column === column;
          const Arrow = sorting.descending ? IconArrowDown : IconArrowUp;
          return (
            <Table.Th
              key={column}
              ta={index > 1 ? "right" : undefined}
              {...(always ? {} : { visibleFrom: "sm" })}
              {...(by ? { "aria-sort": sorting.descending ? "descending" : "ascending" } : {})}
            >
              <UnstyledButton className={classes.sort} onClick={() => onSort(sortedBy(column, sorting))}>
                {label}
                {by ? <Arrow size={13} aria-hidden /> : null}
              </UnstyledButton>
            </Table.Th>
          );
        })}
      >
        {sorted(agents, sorting).map((row) => (
          <Table.Tr key={`${row.agent}/${row.type}/${row.model ?? ""}`} className={rows.row}>
            <Table.Td>
              <Link
                to="/dashboard"
                search={(known) => dashboardSearch({ ...known, behind: { agent: row.agent } })}
                className={rows.link}
                aria-label={`${row.agent} with ${row.model ?? "no model"}: show its runs`}
              >
                {row.agent}
              </Link>
              <Text size="xs" c="dimmed">
                {row.type}
              </Text>
              <Text size="xs" c="dimmed" className="mono" hiddenFrom="sm">
                {row.model}
              </Text>
            </Table.Td>
            <Table.Td visibleFrom="sm">
              <span className="mono">{row.model ?? "–"}</span>
            </Table.Td>
            <Table.Td ta="right">{count(row.runs)}</Table.Td>
            <Table.Td ta="right">
              <RateCell rate={row.success_rate} />
            </Table.Td>
            <Table.Td ta="right" visibleFrom="sm">
              {latency(row.latency_ms.p50)}
            </Table.Td>
            <Table.Td ta="right">{latency(row.latency_ms.p95)}</Table.Td>
            <Table.Td ta="right" visibleFrom="sm">
              {latency(row.latency_ms.p99)}
            </Table.Td>
            <Table.Td ta="right" visibleFrom="sm">
              {count(row.input_tokens + row.output_tokens)}
            </Table.Td>
            <Table.Td ta="right" visibleFrom="sm" className={row.cost_usd === null ? classes.unknown : undefined}>
              {knownCost(row.cost_usd, row.input_tokens + row.output_tokens)}
            </Table.Td>
            <Table.Td ta="right" visibleFrom="sm">
              {count(row.retries)}
            </Table.Td>
            <Table.Td ta="right" visibleFrom="sm">
              {count(row.fallbacks)}
            </Table.Td>
          </Table.Tr>
        ))}
      </DataTable>
    </TablePanel>
  );
}
