import { Paper, ScrollArea, Table, type TableProps, Text, Title } from "@mantine/core";
import { type ReactNode, useId } from "react";
import classes from "./DataTable.module.css";

interface PanelProps {
  title?: string;
  /** A description of the rows, below the title. */
  note?: ReactNode;
  children: ReactNode;
}

/** The paper that a table, or its empty state, fills from edge to edge. */
export function TablePanel({ title, note, children }: PanelProps) {
  const id = useId();
  if (title === undefined) return <Paper className={classes.panel}>{children}</Paper>;
  return (
    <Paper component="section" aria-labelledby={id} className={classes.panel}>
      <Title order={2} size="h3" id={id} px="md" pt="sm" pb={note ? 0 : "sm"}>
        {title}
      </Title>
      {note ? (
        <Text c="dimmed" size="sm" px="md" pt={2} pb="sm">
          {note}
        </Text>
      ) : null}
      {children}
    </Paper>
  );
}

interface Props extends TableProps {
  /** The header cells. Columns that don't fit on a phone are `visibleFrom="sm"`, here and in the rows. */
  head: ReactNode;
  /** In pixels. In less space the table scrolls sideways, except on a phone. */
  minWidth?: number;
  /** In pixels. A higher table scrolls below its header. */
  height?: number;
}

/** A table. */
export function DataTable({ head, minWidth = 0, height, children, ...table }: Props) {
  const scrolled =
    height === undefined
      ? {}
      : { h: height, viewportProps: { tabIndex: 0, role: "group", "aria-label": table["aria-label"] } };
  return (
    <ScrollArea type="auto" {...scrolled}>
      <Table
        className={classes.table}
        stickyHeader={height !== undefined}
        {...table}
        style={{ "--table-min-width": `${minWidth}px` }}
      >
        <Table.Thead>
          <Table.Tr>{head}</Table.Tr>
        </Table.Thead>
        <Table.Tbody>{children}</Table.Tbody>
      </Table>
    </ScrollArea>
  );
}

/** Classes for the cell that grows, and for cells that wrap. */
export const cell = { wide: classes.wide, prose: classes.prose };
