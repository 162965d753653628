import type { ReactNode } from "react";
import type { WorkflowMetrics } from "@/shared/api/schema";
import { cost, count, percent } from "@/shared/format/amounts";
import { Figure, type Row } from "./Figure";
import type { Measure } from "./search";
import { axisOf, costPoints, type Point, runPoints, successPoints, tokenPoints } from "./series";

interface Look {
  title: string;
  unit: string;
  kind: "bars" | "line";
  rows: Row[];
  points: (series: WorkflowMetrics["time_series"]) => Point[];
  format: (value: number) => string;
  most?: number;
  whole?: boolean;
}

const LOOKS: Record<Measure, Look> = {
  runs: {
    title: "Runs over time",
    unit: "Runs by the time they were queued",
    kind: "bars",
    rows: [
      { name: "success", label: "Success", colour: "success" },
      { name: "failed", label: "Failed", colour: "failed" },
      { name: "cancelled", label: "Cancelled", colour: "cancelled" },
      { name: "unfinished", label: "Not finished", colour: "unfinished" },
    ],
    points: runPoints,
    format: count,
    whole: true,
  },
  success: {
    title: "Success rate over time",
    unit: "Share of finished runs that succeeded; gaps where none finished",
    kind: "line",
    rows: [{ name: "rate", label: "Success rate", colour: "success" }],
    points: successPoints,
    format: percent,
    most: 1,
  },
  tokens: {
    title: "Tokens over time",
    unit: "Tokens used by the runs queued at that time",
    kind: "bars",
    rows: [
      { name: "input", label: "Input", colour: "blue" },
      { name: "output", label: "Output", colour: "orange" },
    ],
    points: tokenPoints,
    format: count,
    whole: true,
  },
  cost: {
    title: "Cost over time",
    unit: "US dollars, where prices are known; gaps where they aren't",
    kind: "bars",
    rows: [{ name: "cost", label: "Cost", colour: "blue" }],
    points: costPoints,
    format: cost,
  },
};

interface Props {
  metrics: WorkflowMetrics;
  measure: Measure;
  children: ReactNode;
}

/** Runs, success rate, tokens or cost over time. */
export function RunsFigure({ metrics, measure, children }: Props) {
  const { points, ...look } = LOOKS[measure];
  return (
    <Figure {...look} axis={axisOf(metrics)} points={points(metrics.time_series)}>
      {children}
    </Figure>
  );
}
