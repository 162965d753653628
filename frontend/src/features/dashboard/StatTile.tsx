import { Paper, Text } from "@mantine/core";
import type { ReactNode } from "react";
import classes from "./StatTile.module.css";

interface Props {
  label: string;
  value: ReactNode;
  /** What the figure is made of, or what it means. */
  children?: ReactNode;
}

/** One figure, and what it says. */
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

/** Figures side by side. */
export function StatTiles({ children, label }: { children: ReactNode; label: string }) {
  return (
    <dl className={classes.tiles} aria-label={label}>
      {children}
    </dl>
  );
}
