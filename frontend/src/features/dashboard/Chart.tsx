import "@mantine/charts/styles.css";
import { BarChart, LineChart } from "@mantine/charts";
import { useMediaQuery } from "@mantine/hooks";
import type { FigureProps, Row } from "./Figure";
import classes from "./Figure.module.css";
import { bucketLabel, type Point, tickLabel, ticksOf } from "./series";

/** Space for the upper half of the topmost label. */
const MARGIN = { top: 8, right: 8 };

/** The chart of a figure; loaded separately, because it is large. */
export function Chart({ title, axis, points, rows, kind, format, most, whole }: FigureProps) {
  const narrow = useMediaQuery("(max-width: 48em)", false, { getInitialValueInEffect: false });
  const shared = {
    h: 250,
    data: points,
    dataKey: "start",
    series: rows.map((row) => ({ name: row.name, label: row.label, color: `var(--figure-${row.colour})` })),
    valueFormatter: format,
    gridAxis: "x" as const,
    tickLine: "none" as const,
    strokeDasharray: "0",
    gridColor: "var(--flow-line)",
    textColor: "var(--mantine-color-dimmed)",
    xAxisProps: {
      ticks: ticksOf(axis, narrow ? 4 : undefined),
      tickFormatter: (start: number) => tickLabel(start, axis),
      interval: 0,
      tickMargin: 8,
    },
    yAxisProps: {
      width: narrow ? 44 : 58,
      allowDecimals: !whole,
      domain: [0, most ?? "auto"] as [number, number | "auto"],
    },
    tooltipProps: {
      cursor: kind === "bars" ? { fill: "var(--flow-hover)" } : { stroke: "var(--flow-line)" },
      content: ({ active, payload }: { active?: boolean; payload?: readonly { payload?: unknown }[] }) => {
        const point = payload?.[0]?.payload as Point | undefined;
        return active && point ? (
          <Tip label={bucketLabel(point.start, axis)} point={point} rows={rows} format={format} />
        ) : null;
      },
    },
    "aria-label": `${title}, as a chart; also available as a table`,
    role: "group",
  };
  return (
    <>
      {kind === "bars" ? (
        <BarChart
          {...shared}
          type="stacked"
          maxBarWidth={36}
          barProps={{ isAnimationActive: false }}
          barChartProps={{ barCategoryGap: "18%", margin: MARGIN }}
        />
      ) : (
        <LineChart
          {...shared}
          lineChartProps={{ margin: MARGIN }}
          connectNulls={false}
          curveType="linear"
          dotProps={{ r: 2.5, strokeWidth: 0 }}
          lineProps={{ isAnimationActive: false }}
        />
      )}
      {rows.length > 1 ? <Legend rows={rows} /> : null}
    </>
  );
}

function Legend({ rows }: { rows: Row[] }) {
  return (
    <ul className={classes.legend} aria-label="Colours">
      {rows.map((row) => (
        <li key={row.name}>
          <Swatch row={row} />
          {row.label}
        </li>
      ))}
    </ul>
  );
}

interface TipProps {
  label: string;
  point: Point;
  rows: Row[];
  format: (value: number) => string;
}

function Tip({ label, point, rows, format }: TipProps) {
  return (
    <div className={classes.tip}>
      <p>{label}</p>
      {rows.map((row) => {
        const value = point[row.name];
        return (
          <div key={row.name}>
            <Swatch row={row} />
            {row.label}
            <b>{value == null ? "no data" : format(value)}</b>
          </div>
        );
      })}
    </div>
  );
}

function Swatch({ row }: { row: Row }) {
  return <span className={classes.swatch} style={{ background: `var(--figure-${row.colour})` }} />;
}
