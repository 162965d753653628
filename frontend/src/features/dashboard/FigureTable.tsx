import { ScrollArea, Table } from "@mantine/core";
import classes from "./DataTable.module.css";
import type { FigureProps } from "./Figure";
import { bucketLabel } from "./series";

/** A time series as a table, the latest first. */
export function FigureTable({ title, axis, points, rows, format }: FigureProps) {
  return (
    <ScrollArea h={270} type="auto" viewportProps={{ tabIndex: 0, role: "group", "aria-label": title }}>
      <Table className={classes.table} stickyHeader verticalSpacing={4}>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Time</Table.Th>
            {rows.map((row) => (
              <Table.Th key={row.name} ta="right">
                {row.label}
              </Table.Th>
            ))}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
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
        </Table.Tbody>
      </Table>
    </ScrollArea>
  );
}
