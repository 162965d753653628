import { Drawer, Group, SegmentedControl, Stack, Text } from "@mantine/core";
import { useState } from "react";
import type { SnapshotOut } from "@/shared/api/schema";
import { duration, elapsed, fullMoment } from "@/shared/format/times";
import type { TaskRun } from "@/shared/stream/run-model";
import { StateBadge } from "@/shared/ui/StateBadge";
import { TaskLog } from "./TaskLog";

interface Props {
  run: SnapshotOut;
  task: TaskRun | undefined;
  onClose: () => void;
}

/** A task's tries and their logs. */
export function TaskDrawer({ run, task, onClose }: Props) {
  return (
    <Drawer
      opened={task !== undefined}
      onClose={onClose}
      title={
        task ? (
          <Group gap="sm">
            <Text fw={600} size="lg">
              {task.key}
            </Text>
            <StateBadge state={task.state} />
          </Group>
        ) : null
      }
      closeButtonProps={{ "aria-label": "Close" }}
    >
      {task ? <Content key={task.key} run={run} task={task} /> : null}
    </Drawer>
  );
}

function Content({ run, task }: { run: SnapshotOut; task: TaskRun }) {
  const [chosen, setChosen] = useState<number | null>(null);
  const latest = Math.max(task.tryNumber, ...task.tries.map((one) => one.number));
  const number = chosen ?? latest;
  const numbers = task.tries.map((one) => one.number);
  const shown = task.tries.find((one) => one.number === number);
  if (number < 1) return <Text c="dimmed">This task hasn't started. Its log appears here when it does.</Text>;
  return (
    <Stack gap="sm">
      <Group justify="space-between">
        {numbers.length > 1 ? (
          <SegmentedControl
            size="xs"
            aria-label="Try"
            data={numbers.map((one) => ({ value: String(one), label: `Try ${one}` }))}
            value={String(number)}
            onChange={(value) => setChosen(Number(value))}
          />
        ) : (
          <Text size="sm" c="dimmed">
            Try {number}
          </Text>
        )}
        {shown?.startedAt ? (
          <Text size="sm" c="dimmed" className="tabular" title={fullMoment(shown.startedAt)}>
            {shown.finishedAt ? duration(elapsed(shown.startedAt, shown.finishedAt, 0)) : "running"}
          </Text>
        ) : null}
      </Group>
      <TaskLog key={number} run={run} task={task} tryNumber={number} />
    </Stack>
  );
}
