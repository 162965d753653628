import { Button, Group as Row, Paper, Progress, Text, UnstyledButton } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { useState } from "react";
import type { SnapshotOut } from "@/shared/api/schema";
import { count } from "@/shared/format/amounts";
import { duration } from "@/shared/format/times";
import { taskKey } from "@/shared/stream/run-model";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { StateBadge } from "@/shared/ui/StateBadge";
import { lookOf } from "@/shared/ui/states";
import { type Group, instancesQuery } from "./groups";
import classes from "./TaskGroup.module.css";

interface Props {
  run: SnapshotOut;
  group: Group;
  onSelect: (task: string) => void;
}

/** A mapped task with many instances: how many are in which state, and on request which. */
export function TaskGroup({ run, group, onSelect }: Props) {
  const [listed, setListed] = useState<string | null>(null);
  const toggle = (state: string) => setListed((before) => (before === state ? null : state));
  return (
    <Paper component="section" aria-label={`Instances of ${group.taskId}`} p="md">
      <Row justify="space-between" mb="xs">
        <Text fw={600}>{group.taskId}</Text>
        <Text size="sm" c="dimmed" className="tabular">
          {count(group.total)} instances
        </Text>
      </Row>
      <Progress.Root size={8} mb="sm">
        {group.states.map(([state, number]) => (
          <Progress.Section
            key={state}
            value={(number / group.total) * 100}
            color={`var(--state-${lookOf(state).tone})`}
            aria-label={lookOf(state).label}
          />
        ))}
      </Progress.Root>
      <Row gap="xs">
        {group.states.map(([state, number]) => (
          <Button
            key={state}
            size="compact-sm"
            variant={listed === state ? "light" : "default"}
            aria-expanded={listed === state}
            onClick={() => toggle(state)}
          >
            {count(number)} {lookOf(state === "none" ? null : state).label.toLowerCase()}
          </Button>
        ))}
      </Row>
      {listed === null ? null : <Instances run={run} taskId={group.taskId} state={listed} onSelect={onSelect} />}
    </Paper>
  );
}

function Instances({ run, taskId, state, onSelect }: Omit<Props, "group"> & { taskId: string; state: string }) {
  // Those that nobody has queued yet can't be asked for by their state; they come last.
  const query = useInfiniteQuery(instancesQuery(run, taskId, state === "none" ? null : state));
  if (query.error) return <ProblemAlert error={query.error} onRetry={() => void query.refetch()} />;
  const tasks = query.data?.pages.flatMap((page) => page.tasks) ?? [];
  return (
    <>
      <ul className={classes.instances} aria-label={`${taskId}, ${lookOf(state).label}`}>
        {tasks.map((task) => {
          const key = taskKey(task.task_id, task.map_index);
          return (
            <li key={key}>
              <UnstyledButton onClick={() => onSelect(key)} title={`Log of ${key}`} className={classes.instance}>
                <StateBadge state={task.state} iconOnly />
                <span>{key}</span>
                <span className={classes.note}>{task.duration === null ? "" : duration(task.duration)}</span>
              </UnstyledButton>
            </li>
          );
        })}
      </ul>
      {query.hasNextPage || query.isPending ? (
        <Button
          size="compact-sm"
          variant="subtle"
          loading={query.isFetching}
          onClick={() => void query.fetchNextPage()}
        >
          Show more
        </Button>
      ) : null}
    </>
  );
}
