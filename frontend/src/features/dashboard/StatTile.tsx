import { Paper, Text } from "@mantine/core";
import type { ReactNode } from "react";
import classes from "./StatTile.module.css";

interface Props {
  label: string;
  value: ReactNode;
  /** What the figure consists of, or what it means. */
  children?: ReactNode;
}

/** One figure with its explanation. */
export function StatTile({ label, value, children }: Props) {
  return (
    <Paper className={classes.tile}>
      <Text component="dt" size="xs" c="dimmed" fw={500}>
        {label}
      </Text>
      <dd className={classes.value}>{value}</dd>
      <dd className={classes.note}>{children}</dd>
    </Paper>
  );
}

/** A row of figures. */
export function StatTiles({ children, label }: { children: ReactNode; label: string }) {
  return (
    <dl className={classes.tiles} aria-label={label}>
      {children}
    </dl>
  );
}
