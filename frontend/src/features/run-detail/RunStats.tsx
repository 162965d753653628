import { Paper, Progress, Text } from "@mantine/core";
import { type ReactNode, useMemo } from "react";
import { cost, count } from "@/shared/format/amounts";
import { duration, elapsed, fullMoment, moment } from "@/shared/format/times";
import { type RunModel, totalUsage } from "@/shared/stream/run-model";
import type { WatchedRun } from "@/shared/stream/useRun";
import { isActive, lookOf, progressLabel } from "@/shared/ui/states";
import { useNow } from "@/shared/ui/useNow";
import classes from "./RunStats.module.css";

/** The run's key figures. */
export function RunStats({ run: { snapshot, model } }: { run: WatchedRun }) {
  const active = isActive(model.state);
  const now = useNow(200, active);
  const told = useMemo(() => totalUsage(model), [model]);
  // For a finished run the database has the final figures; for an active one the stream is ahead of it.
  const settled = !active && !isActive(snapshot.state);
  const input = settled ? snapshot.usage.input_tokens : Math.max(told.input, snapshot.usage.input_tokens);
  const output = settled ? snapshot.usage.output_tokens : Math.max(told.output, snapshot.usage.output_tokens);
  const spent = settled ? snapshot.cost_usd : (told.costUsd ?? snapshot.cost_usd);

  return (
    <Paper component="dl" className={classes.stats}>
      <Stat name="Progress" wide>
        <span className={classes.progress}>
          <Progress
            value={model.progress}
            size={6}
            color={`var(--state-${lookOf(model.state).tone})`}
            aria-label="Run progress"
            style={{ flex: 1 }}
            transitionDuration={300}
          />
          <span>{progressLabel(model.state, model.progress)}</span>
        </span>
        <Text component="span" size="xs" c="dimmed" fw={400}>
          {tasksLabel(model)}
        </Text>
      </Stat>
      <Stat name="Duration">{duration(elapsed(model.startedAt, model.finishedAt, now))}</Stat>
      <Stat name="Tokens" hint={`${count(input)} in, ${count(output)} out`}>
        {count(input + output)}
      </Stat>
      <Stat name="Cost">{cost(spent)}</Stat>
      <Stat name="Started" hint={model.attempt > 1 ? `attempt ${model.attempt}` : undefined}>
        <span title={fullMoment(model.startedAt ?? snapshot.queued_at)}>
          {moment(model.startedAt ?? snapshot.queued_at, now)}
        </span>
      </Stat>
      <Stat name="User">{snapshot.user_id ?? snapshot.run_type ?? "–"}</Stat>
    </Paper>
  );
}

/** How many tasks have finished; for a run that failed, how many succeeded. */
function tasksLabel({ state, tasks, tasksDone, tasksTotal }: RunModel): string {
  if (progressLabel(state, 0) !== null) return `${tasksDone} of ${tasksTotal} tasks`;
  const well = [...tasks.values()].filter((task) => task.state === "success").length;
  return `${well} of ${tasksTotal} tasks succeeded`;
}

function Stat({
  name,
  hint,
  wide,
  children,
}: {
  name: string;
  hint?: string | undefined;
  wide?: boolean;
  children: ReactNode;
}) {
  return (
    <div className={classes.stat} data-wide={wide}>
      <dt>{name}</dt>
      <dd>
        {children}
        {hint ? (
          <Text component="span" size="xs" c="dimmed" display="block" fw={400}>
            {hint}
          </Text>
        ) : null}
      </dd>
    </div>
  );
}
