import { Alert, Anchor, Button, Group, Modal, Paper, Skeleton, Stack, Text, Title } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconCalendarTime, IconPencil, IconPlayerPause, IconPlayerPlay, IconTrash } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { lazy, Suspense } from "react";
import type { ScheduleOut } from "@/shared/api/schema";
import { isOperator, mayChange, useMe } from "@/shared/api/session";
import { fullMoment, moment } from "@/shared/format/times";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { StateBadge } from "@/shared/ui/StateBadge";
import { bodyOf, scheduleQuery, type Target, useScheduleChanges, whenDue } from "./schedule";

const ScheduleForm = lazy(() => import("./ScheduleForm").then((module) => ({ default: module.ScheduleForm })));

interface Props {
  target: Target;
  /** The JSON Schema of a run's input; without one, it is edited as JSON. */
  inputSchema?: Record<string, unknown> | undefined;
}

/** The schedule of a workflow or a template: when it is due, whose runs they are, what came of it, and changing it. */
export function ScheduleSection({ target, inputSchema }: Props) {
  const me = useMe();
  const schedule = useQuery(scheduleQuery(target));
  const [editing, { open, close }] = useDisclosure();
  const { set, remove } = useScheduleChanges(target);
  const known = schedule.data;
  const allowed = mayChange(me.role) && (!known || known.user_id === me.user_id || isOperator(me.role));

  return (
    <Paper p="lg" component="section" aria-labelledby="schedule-title">
      <Group justify="space-between" align="center" mb="xs">
        <Title order={2} size="h4" id="schedule-title">
          Schedule
        </Title>
        {known ? <StateBadge state={stateOf(known)} size="md" /> : null}
      </Group>
      {schedule.isPending ? <Skeleton h={48} role="status" aria-busy="true" aria-label="Loading the schedule" /> : null}
      {schedule.isError ? <ProblemAlert error={schedule.error} onRetry={() => void schedule.refetch()} /> : null}
      {known === null ? <Text c="dimmed">No schedule is set. Runs are started by people and programs.</Text> : null}
      {known ? <Facts schedule={known} /> : null}
      {set.error && !editing ? <ProblemAlert error={set.error} /> : null}
      {remove.error ? <ProblemAlert error={remove.error} /> : null}
      {allowed && known !== undefined ? (
        <Group gap="sm" mt="md">
          <Button
            variant="default"
            leftSection={known ? <IconPencil size={16} aria-hidden /> : <IconCalendarTime size={16} aria-hidden />}
            onClick={open}
          >
            {known ? "Change" : "Set a schedule"}
          </Button>
          {known ? (
            <>
              <Button
                variant="default"
                loading={set.isPending}
                leftSection={
                  known.enabled ? <IconPlayerPause size={16} aria-hidden /> : <IconPlayerPlay size={16} aria-hidden />
                }
                onClick={() => set.mutate({ ...bodyOf(known), enabled: !known.enabled })}
              >
                {known.enabled ? "Pause" : "Resume"}
              </Button>
              <Button
                variant="default"
                loading={remove.isPending}
                leftSection={<IconTrash size={16} aria-hidden />}
                onClick={() => remove.mutate()}
              >
                Delete
              </Button>
            </>
          ) : null}
        </Group>
      ) : null}
      {known !== undefined ? (
        <Modal
          opened={editing}
          onClose={close}
          title={`Schedule of ${target.name}`}
          size="lg"
          closeButtonProps={{ "aria-label": "Close" }}
        >
          <Suspense fallback={<Skeleton h={320} role="status" aria-busy="true" aria-label="Loading the form" />}>
            <ScheduleForm target={target} schedule={known} inputSchema={inputSchema} onDone={close} />
          </Suspense>
        </Modal>
      ) : null}
    </Paper>
  );
}

function stateOf(schedule: ScheduleOut): string {
  if (schedule.enabled) return "active";
  return schedule.stopped_reason ? "stopped" : "paused";
}

function Facts({ schedule }: { schedule: ScheduleOut }) {
  const last = schedule.latest.find((one) => one.dag_run_id !== null);
  return (
    <Stack gap={4}>
      <Text>
        Due {whenDue(schedule)}
        {schedule.catchup ? ", with catch-up" : ""}
      </Text>
      <Text size="sm" c="dimmed">
        {schedule.next_run_date ? (
          <span title={fullMoment(schedule.next_run_date)}>Next run {moment(schedule.next_run_date)}. </span>
        ) : null}
        The runs are {schedule.user_id}’s.
        {last?.dag_id && last.dag_run_id ? (
          <>
            {" "}
            <Anchor inherit href={`/runs/${encodeURIComponent(last.dag_id)}/${encodeURIComponent(last.dag_run_id)}`}>
              Last run {moment(last.requested_at)}
            </Anchor>
          </>
        ) : null}
      </Text>
      {schedule.stopped_reason ? (
        <Alert color="red" title="This schedule was stopped" mt="xs">
          {schedule.stopped_reason} Whoever sets it again takes over its runs.
        </Alert>
      ) : schedule.last_error ? (
        <Alert color="yellow" title="The last time led to no run" mt="xs">
          {schedule.last_error}
        </Alert>
      ) : null}
    </Stack>
  );
}
