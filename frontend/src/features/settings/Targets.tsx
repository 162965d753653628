import { Badge, Button, Group, Modal, Paper, Stack, Switch, Text, Title, Tooltip, ActionIcon } from "@mantine/core";
import { IconAlertTriangle, IconBellOff, IconPencil, IconPlus, IconTrash } from "@tabler/icons-react";
import { useState } from "react";
import type { PreferencesOut, TargetOut } from "@/shared/api/schema";
import { EmptyState } from "@/shared/ui/EmptyState";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { eventLabel, placeIn, withoutTarget, withTarget } from "./preferences";
import classes from "./Targets.module.css";
import { TargetModal } from "./TargetModal";
import { useSavePreferences } from "./useSavePreferences";

/** The API's limit. */
const MOST = 20;

/** The webhooks that receive notifications about the user's runs. */
export function Targets({ known }: { known: PreferencesOut }) {
  const [edited, setEdited] = useState<number | "new" | null>(null);
  const targets = known.notification_targets;
  const close = () => setEdited(null);
  return (
    <Paper component="section" aria-labelledby="targets" p="lg">
      <Group justify="space-between" align="flex-start" mb="sm">
        <div>
          <Title order={2} id="targets">
            Notifications
          </Title>
          <Text c="dimmed">
            Webhooks that receive notifications about your runs, including those that Airflow started for you.
          </Text>
        </div>
        {targets.length < MOST ? (
          <Button variant="default" leftSection={<IconPlus size={16} aria-hidden />} onClick={() => setEdited("new")}>
            Add a webhook
          </Button>
        ) : (
          <Text size="sm" c="dimmed">
            The limit is {MOST} webhooks.
          </Text>
        )}
      </Group>
      {targets.length === 0 ? (
        <EmptyState icon={IconBellOff} title="No notifications">
          Add a webhook to be notified of failed runs, budgets and rate limits.
        </EmptyState>
      ) : (
        <ul className={classes.targets}>
          {targets.map((target, index) => (
            <Target key={target.name} target={target} index={index} onEdit={() => setEdited(index)} />
          ))}
        </ul>
      )}
      {edited === null ? null : (
        <TargetModal
          target={edited === "new" ? null : (targets[edited] ?? null)}
          index={edited === "new" ? null : edited}
          position={edited === "new" ? targets.length : edited}
          onClose={close}
        />
      )}
    </Paper>
  );
}

function Target({ target, index, onEdit }: { target: TargetOut; index: number; onEdit: () => void }) {
  const [removing, setRemoving] = useState(false);
  const save = useSavePreferences();
  const { has_secret: hasSecret, ...body } = target;
  return (
    <li className={classes.target}>
      <Group justify="space-between" wrap="nowrap" align="flex-start">
        <div className={classes.what}>
          <Group gap={8}>
            <Text fw={550}>{target.name}</Text>
            {!target.enabled ? (
              <Badge color="gray" variant="light">
                off
              </Badge>
            ) : null}
          </Group>
          <Text size="sm" c="dimmed" className="mono" truncate>
            {target.url}
          </Text>
          <Group gap={6} mt={6}>
            {target.events.map((event) => (
              <Badge key={event} color="gray" variant="light">
                {eventLabel(event)}
              </Badge>
            ))}
          </Group>
          {hasSecret ? null : (
            <Group gap={6} mt={8} c="var(--state-caution)">
              <IconAlertTriangle size={16} aria-hidden />
              <Text size="sm">Its secret can no longer be read. Nothing is sent until you set it again.</Text>
            </Group>
          )}
        </div>
        <Group gap="xs" wrap="nowrap">
          <Switch
            aria-label={`Send to ${target.name}`}
            checked={target.enabled}
            disabled={save.isPending || !hasSecret}
            onChange={(event) => {
              const enabled = event.currentTarget.checked;
              save.mutate((now) => withTarget(now, { ...body, enabled }, placeIn(now, target.name, index)));
            }}
          />
          <Tooltip label="Edit">
            <ActionIcon variant="subtle" color="gray" aria-label={`Edit ${target.name}`} onClick={onEdit}>
              <IconPencil size={16} aria-hidden />
            </ActionIcon>
          </Tooltip>
          <Tooltip label="Remove">
            <ActionIcon
              variant="subtle"
              color="gray"
              aria-label={`Remove ${target.name}`}
              onClick={() => setRemoving(true)}
            >
              <IconTrash size={16} aria-hidden />
            </ActionIcon>
          </Tooltip>
        </Group>
      </Group>
      {save.error && !removing ? <ProblemAlert error={save.error} /> : null}
      <Modal
        opened={removing}
        onClose={() => setRemoving(false)}
        title={`Remove ${target.name}?`}
        closeButtonProps={{ "aria-label": "Close" }}
      >
        <Stack gap="md">
          <Text>
            Nothing more is sent there, and its secret is deleted. Notifications that are waiting are dropped.
          </Text>
          {save.error ? <ProblemAlert error={save.error} /> : null}
          <Group justify="flex-end">
            <Button variant="default" onClick={() => setRemoving(false)}>
              Keep
            </Button>
            <Button
              color="red"
              loading={save.isPending}
              onClick={() => save.mutate((now) => withoutTarget(now, placeIn(now, target.name, index)))}
            >
              Remove
            </Button>
          </Group>
        </Stack>
      </Modal>
    </li>
  );
}
