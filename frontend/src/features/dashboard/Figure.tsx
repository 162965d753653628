import { ActionIcon, Group, Paper, Skeleton, Text, Title, Tooltip } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconChartBar, IconTable } from "@tabler/icons-react";
import { lazy, type ReactNode, Suspense, useId } from "react";
import classes from "./Figure.module.css";
import { FigureTable } from "./FigureTable";
import { type Axis, type Point, stepLabel } from "./series";

const Chart = lazy(() => import("./Chart").then((module) => ({ default: module.Chart })));

/** One row of values: its name in the points, what it is called, and the number of its colour. */
export interface Row {
  name: string;
  label: string;
  colour: string;
}

export interface FigureProps {
  title: string;
  /** What is counted, and in which unit. */
  unit: string;
  axis: Axis;
  points: Point[];
  rows: Row[];
  kind: "bars" | "line";
  format: (value: number) => string;
  /** The end of the scale, where it has a natural one. */
  most?: number;
  /** Whether only whole numbers are on the scale. */
  whole?: boolean;
  children?: ReactNode;
}

/** A time series as a chart, and as a table for who prefers one. */
export function Figure(props: FigureProps) {
  const [table, { toggle }] = useDisclosure();
  const id = useId();
  return (
    <Paper component="section" aria-labelledby={id} p="md">
      <Group justify="space-between" mb="sm" gap="xs">
        <div>
          <Title order={2} size="h3" id={id}>
            {props.title}
          </Title>
          <Text size="xs" c="dimmed">
            {props.unit}, each {stepLabel(props.axis)}
          </Text>
        </div>
        <Group gap="xs">
          {props.children}
          <Tooltip label={table ? "As a chart" : "As a table"}>
            <ActionIcon variant="default" size={30} aria-label={table ? "As a chart" : "As a table"} onClick={toggle}>
              {table ? <IconChartBar size={16} aria-hidden /> : <IconTable size={16} aria-hidden />}
            </ActionIcon>
          </Tooltip>
        </Group>
      </Group>
      <div className={classes.colours}>
        {table ? (
          <FigureTable {...props} />
        ) : (
          <Suspense fallback={<Skeleton h={270} />}>
            <Chart {...props} />
          </Suspense>
        )}
      </div>
    </Paper>
  );
}
