import { Table } from "@mantine/core";
import { DataTable } from "@/shared/ui/DataTable";
import type { FigureProps } from "./Figure";
import { bucketLabel } from "./series";

/** A time series as a table, latest first. */
export function FigureTable({ title, axis, points, rows, format }: FigureProps) {
  return (
    <DataTable
      height={270}
      aria-label={title}
      verticalSpacing={4}
      head={
        <>
          <Table.Th>Time</Table.Th>
          {rows.map((row) => (
            <Table.Th key={row.name} ta="right">
              {row.label}
            </Table.Th>
          ))}
        </>
      }
    >
      {points.toReversed().map((point) => (
        <Table.Tr key={point.start}>
          <Table.Td>{bucketLabel(point.start, axis)}</Table.Td>
          {rows.map((row) => {
            const value = point[row.name];
            return (
              <Table.Td key={row.name} ta="right">
                {value == null ? "–" : format(value)}
              </Table.Td>
            );
          })}
        </Table.Tr>
      ))}
    </DataTable>
  );
}
