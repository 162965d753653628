import { Accordion, Badge, Group, Paper, Stack, Text } from "@mantine/core";
import {
  IconArrowRight,
  IconCircleCheck,
  IconClockPause,
  IconMoodCheck,
  IconRefresh,
  IconReplace,
  IconTool,
  IconX,
  type TablerIcon,
} from "@tabler/icons-react";
import type { ErrorOut } from "@/shared/api/schema";
import { duration, fullMoment, moment } from "@/shared/format/times";
import { taskKey } from "@/shared/stream/run-model";
import { EmptyState } from "@/shared/ui/EmptyState";
import { JsonView } from "@/shared/ui/JsonView";
import { isActive } from "@/shared/ui/states";
import classes from "./ErrorsPanel.module.css";

/** What was done about an error; `wait` joins the text and the time until then ("after 2 s"). */
const ACTIONS: Record<string, { icon: TablerIcon; text: string; wait?: string }> = {
  retry: { icon: IconRefresh, text: "Retried" },
  fallback: { icon: IconReplace, text: "Switched to another model" },
  reschedule: { icon: IconClockPause, text: "Waiting without a worker", wait: "for" },
  repair: { icon: IconTool, text: "Sent back for repair" },
  task_retry: { icon: IconRefresh, text: "Left to the task's retries" },
  fail: { icon: IconX, text: "Gave up" },
};

interface Props {
  errors: readonly ErrorOut[];
  state: string;
  onSelect: (task: string) => void;
}

/** Every error of every attempt, and what was done about it. */
export function ErrorsPanel({ errors, state, onSelect }: Props) {
  if (errors.length === 0) {
    return (
      <Paper>
        <EmptyState icon={IconMoodCheck} title="No errors">
          {isActive(state)
            ? "If a model call fails, the error appears here with what was done about it."
            : state === "failed"
              ? "No agent had an error. What ended the run is looked up in Airflow and appears here."
              : "No attempt by any agent failed."}
        </EmptyState>
      </Paper>
    );
  }
  return (
    <Stack gap="sm" component="ul" className={classes.list} aria-label="Errors, oldest first">
      {errors.map((error, index) => (
        <ErrorCard key={index} error={error} onSelect={onSelect} />
      ))}
    </Stack>
  );
}

function ErrorCard({ error, onSelect }: { error: ErrorOut; onSelect: (task: string) => void }) {
  const action = ACTIONS[error.action] ?? { icon: IconArrowRight, text: error.action };
  const place = [error.agent, error.node].filter(Boolean).join(" › ");
  const task = error.task_id === null ? null : taskKey(error.task_id, error.map_index);
  const context = Object.keys(error.context).length > 0 ? error.context : null;
  return (
    <Paper component="li" className={classes.error} data-recovered={error.recovered || undefined}>
      <Group justify="space-between" gap="xs">
        <Group gap="sm">
          <Badge color="red" variant="light">
            {error.category}
          </Badge>
          <Text size="sm" fw={500} className={`mono ${classes.message}`} title={error.exception_type}>
            {error.exception_type.split(".").at(-1)}
          </Text>
          {error.recovered ? (
            <span className={classes.recovered}>
              <IconCircleCheck size={15} aria-hidden /> recovered
            </span>
          ) : null}
        </Group>
        <Text size="sm" c="dimmed" title={fullMoment(error.occurred_at)} className="tabular">
          {moment(error.occurred_at)}
        </Text>
      </Group>
      <Text mt={8} className={classes.message}>
        {error.message}
      </Text>
      <Group gap="4px 20px" mt={10} className={classes.facts}>
        <span className={classes.action}>
          <action.icon size={15} aria-hidden />
          {action.text}
          {error.retry_in === null ? "" : ` ${action.wait ?? "after"} ${duration(error.retry_in)}`}
        </span>
        {task ? (
          <button type="button" className={classes.task} onClick={() => onSelect(task)}>
            {task}
          </button>
        ) : null}
        {place ? <span>{place}</span> : null}
        {error.model ? <span className="mono">{error.model}</span> : null}
        <span>
          {error.try_number === null ? "" : `try ${error.try_number}, `}attempt {error.attempt}
        </span>
      </Group>
      {context ? (
        <Accordion variant="default" mt={6} classNames={{ item: classes.item, control: classes.control }}>
          <Accordion.Item value="context">
            <Accordion.Control>Details</Accordion.Control>
            <Accordion.Panel>
              <JsonView value={context} label="context" />
            </Accordion.Panel>
          </Accordion.Item>
        </Accordion>
      ) : null}
    </Paper>
  );
}
