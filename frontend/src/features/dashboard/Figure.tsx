import { ActionIcon, Group, Paper, Skeleton, Text, Title, Tooltip } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconChartBar, IconTable } from "@tabler/icons-react";
import { lazy, type ReactNode, Suspense, useId } from "react";
import classes from "./Figure.module.css";
import { FigureTable } from "./FigureTable";
import { type Axis, type Point, stepLabel } from "./series";

const Chart = lazy(() => import("./Chart").then((module) => ({ default: module.Chart })));

/** A series: its key in the points, its label, and the number of its colour. */
export interface Row {
  name: string;
  label: string;
  colour: string;
}

export interface FigureProps {
  title: string;
  /** What is counted, and the unit. */
  unit: string;
  axis: Axis;
  points: Point[];
  rows: Row[];
  kind: "bars" | "line";
  format: (value: number) => string;
  /** The scale's maximum, if there is a natural one. */
  most?: number;
  /** Whether the scale shows only whole numbers. */
  whole?: boolean;
  children?: ReactNode;
}

/** A time series, shown as a chart or as a table. */
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
          <Tooltip label={table ? "Show as chart" : "Show as table"}>
            <ActionIcon
              variant="default"
              size={30}
              aria-label={table ? "Show as chart" : "Show as table"}
              onClick={toggle}
            >
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
