import { Paper, SimpleGrid, Stack } from "@mantine/core";
import { IconConfetti } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { ErrorDistribution } from "@/shared/api/schema";
import { count, percent } from "@/shared/format/amounts";
import { lastRange } from "@/shared/format/time-range";
import { ago, fullMoment } from "@/shared/format/times";
import { EmptyState } from "@/shared/ui/EmptyState";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { useNow } from "@/shared/ui/useNow";
import { categoryLook } from "./categories";
import { coloursOf, SHOWN_KINDS } from "./category-colours";
import { runsOf } from "./drill-down";
import { ErrorGroups } from "./ErrorGroups";
import { Figure } from "./Figure";
import { FiguresSkeleton } from "./FiguresSkeleton";
import { DimWhileStale } from "./DimWhileStale";
import { errorsQuery, type Scope } from "./queries";
import { axisOf, errorPoints } from "./series";
import { StatTile, StatTiles } from "./StatTile";

/** Errors over time, by category, by agent and by workflow, and whether runs recovered from them. */
export function ErrorsView({ scope }: { scope: Scope }) {
  const query = useQuery(errorsQuery(scope));
  if (query.isPending) return <FiguresSkeleton tiles={4} />;
  const errors = query.data;
  return (
    <Stack gap="md">
      {query.isError ? <ProblemAlert error={query.error} onRetry={() => void query.refetch()} /> : null}
      {errors?.total === 0 ? (
        <Paper>
          <EmptyState icon={IconConfetti} title={`No errors in ${lastRange(scope.range)}`}>
            Nothing went wrong, not even an error that agents recovered from.
          </EmptyState>
        </Paper>
      ) : null}
      {errors && errors.total > 0 ? (
        <DimWhileStale stale={query.isPlaceholderData}>
          <Totals errors={errors} scope={scope} />
          <ErrorsFigure errors={errors} />
          <SimpleGrid cols={{ base: 1, md: 3 }} spacing="md">
            <ErrorGroups
              title="By category"
              groups={errors.by_category}
              label={(name) => categoryLook(name ?? "").label}
              meaning={(name) => categoryLook(name ?? "").meaning}
              behind={(name) => (name === null ? null : { error: name })}
            />
            <ErrorGroups
              title="By agent"
              groups={errors.by_agent}
              label={(name) => name ?? "Outside of agents"}
              behind={(name) => (name === null ? null : { errorAgent: name })}
            />
            <ErrorGroups
              title="By workflow"
              groups={errors.by_dag}
              label={(name) => name ?? ""}
              runs={(name) => runsOf({ ...scope, dag: name ?? undefined, state: ["failed"] })}
            />
          </SimpleGrid>
        </DimWhileStale>
      ) : null}
    </Stack>
  );
}

function Totals({ errors, scope }: { errors: ErrorDistribution; scope: Scope }) {
  const now = useNow(30_000);
  return (
    <StatTiles label="Totals">
      <StatTile label="Errors" value={count(errors.total)}>
        Counted per attempt, in {lastRange(scope.range)}
      </StatTile>
      <StatTile label="Recovered" value={percent(errors.recovered / errors.total)}>
        {count(errors.recovered)} errors that runs recovered from
      </StatTile>
      <StatTile label="Not recovered" value={count(errors.unrecovered)}>
        <Link to="/runs" search={runsOf({ ...scope, state: ["failed"] })}>
          Failed runs
        </Link>
      </StatTile>
      <StatTile label="Latest" value={<span title={fullMoment(errors.latest)}>{ago(errors.latest, now)}</span>}>
        Mostly {categoryLook(errors.by_category[0]?.name ?? "").label.toLowerCase()},{" "}
        {percent(errors.by_category[0]?.share)} of all
      </StatTile>
    </StatTiles>
  );
}

function ErrorsFigure({ errors }: { errors: ErrorDistribution }) {
  const all = errors.by_category.flatMap((group) => (group.name === null ? [] : [group.name]));
  const colours = coloursOf(all);
  const named = Object.keys(colours);
  return (
    <Figure
      title="Errors over time"
      unit="Errors by the time they occurred"
      kind="bars"
      axis={axisOf(errors)}
      points={errorPoints(errors.time_series, named)}
      rows={[
        ...named.map((name) => ({ name, label: categoryLook(name).label, colour: colours[name] ?? "grey" })),
        ...(all.length > SHOWN_KINDS ? [{ name: "others", label: "Other", colour: "grey" }] : []),
      ]}
      format={count}
      whole
    />
  );
}
