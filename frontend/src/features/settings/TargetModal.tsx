import {
  Button,
  Checkbox,
  Group,
  Modal,
  NumberInput,
  PasswordInput,
  SimpleGrid,
  Stack,
  Switch,
  Text,
  TextInput,
} from "@mantine/core";
import { useState } from "react";
import { asProblem } from "@/shared/api/problem";
import type { TargetOut } from "@/shared/api/schema";
import { CopyButton } from "@/shared/ui/CopyButton";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { type EventName, EVENTS, faultsOfTarget, placeIn, withTarget } from "./preferences";
import { useSavePreferences } from "./useSavePreferences";

const FIELDS = [
  "name",
  "url",
  "secret",
  "events",
  "thresholds/budget_share",
  "thresholds/rate_limit_errors",
  "thresholds/rate_limit_within",
];

interface Props {
  /** The target to edit; null for a new one. */
  target: TargetOut | null;
  index: number | null;
  /** The index that the target has after saving. */
  position: number;
  onClose: () => void;
}

/** Edits a webhook: its URL, its secret, and the events it receives. */
export function TargetModal({ target, index, position, onClose }: Props) {
  const [name, setName] = useState(target?.name ?? "");
  const [url, setUrl] = useState(target?.url ?? "");
  const [secret, setSecret] = useState("");
  const [made, setMade] = useState(false);
  const [enabled, setEnabled] = useState(target?.enabled ?? true);
  const [events, setEvents] = useState<EventName[]>(target?.events ?? ["run_failed"]);
  const [share, setShare] = useState<number | null>((target?.thresholds.budget_share ?? 0.8) * 100);
  const [errors, setErrors] = useState<number | null>(target?.thresholds.rate_limit_errors ?? 20);
  const [within, setWithin] = useState<number | null>(target?.thresholds.rate_limit_within ?? 600);
  const save = useSavePreferences();
  const problem = save.error ? asProblem(save.error) : null;
  const faults = faultsOfTarget(problem?.faults ?? [], position);
  const others =
    problem !== null &&
    (problem.faults.length === 0 ||
      Object.keys(faults).length < problem.faults.length ||
      Object.keys(faults).some((field) => !FIELDS.includes(field)));
  const keepsSecret = target !== null && target.has_secret && name.trim() === target.name;

  const submit = () =>
    save.mutate(
      (now) =>
        withTarget(
          now,
          {
            name: name.trim(),
            url: url.trim(),
            enabled,
            events,
            ...(secret ? { secret } : {}),
            thresholds: {
              budget_share: Math.round((share ?? 80) * 100) / 10_000,
              rate_limit_errors: errors ?? 20,
              rate_limit_within: within ?? 600,
            },
          },
          target === null || index === null ? null : placeIn(now, target.name, index),
        ),
      { onSuccess: onClose },
    );

  return (
    <Modal
      opened
      onClose={onClose}
      size="lg"
      title={target === null ? "Add a webhook" : `Webhook ${target.name}`}
      closeButtonProps={{ "aria-label": "Close" }}
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          submit();
        }}
      >
        <Stack gap="md">
          {others ? (
            <ProblemAlert
              error={problem}
              without={(pointer) => FIELDS.some((field) => pointer.endsWith(`/${position}/${field}`))}
            />
          ) : null}
          <TextInput
            label="Name"
            description="Letters, digits, dots, - and _. Workflows address their alerts to this name"
            placeholder="on-call"
            required
            maxLength={64}
            value={name}
            error={faults.name}
            onChange={(event) => setName(event.currentTarget.value)}
            data-autofocus
          />
          <TextInput
            label="URL"
            description="Receives notifications as JSON, by POST"
            placeholder="https://example.com/hooks/agents"
            type="url"
            required
            value={url}
            error={faults.url}
            onChange={(event) => setUrl(event.currentTarget.value)}
          />
          <Stack gap={6}>
            <Group align="flex-end" gap="xs" wrap="nowrap">
              <PasswordInput
                label="Secret"
                description={secretNote(target, keepsSecret)}
                placeholder={keepsSecret ? "unchanged" : ""}
                required={!keepsSecret}
                minLength={16}
                maxLength={256}
                autoComplete="new-password"
                value={secret}
                error={faults.secret}
                onChange={(event) => {
                  setSecret(event.currentTarget.value);
                  setMade(false);
                }}
                style={{ flex: 1 }}
              />
              <Button
                variant="default"
                onClick={() => {
                  setSecret(newSecret());
                  setMade(true);
                }}
              >
                Generate
              </Button>
            </Group>
            {made ? (
              <Group gap={6}>
                <Text size="sm" className="mono">
                  {secret}
                </Text>
                <CopyButton text={secret} label="Copy secret" />
                <Text size="sm" c="dimmed">
                  Copy it now; it won't be shown again.
                </Text>
              </Group>
            ) : null}
          </Stack>
          <Checkbox.Group
            label="Notify about"
            required
            value={events}
            error={events.length === 0 ? "Select at least one." : faults.events}
            onChange={(given) => setEvents(given)}
          >
            <Stack gap="xs" mt={6}>
              {EVENTS.map((event) => (
                <Checkbox key={event.value} {...event} />
              ))}
            </Stack>
          </Checkbox.Group>
          {events.includes("budget_threshold") ? (
            <NumberInput
              label="Share of budget used"
              suffix=" %"
              min={1}
              max={100}
              value={share ?? ""}
              error={faults["thresholds/budget_share"]}
              onChange={(value) => setShare(numberOf(value))}
              required
              maw={240}
            />
          ) : null}
          {events.includes("rate_limit_threshold") ? (
            <SimpleGrid cols={2}>
              <NumberInput
                label="Rate limits"
                suffix=" errors"
                min={1}
                max={10_000}
                allowDecimal={false}
                value={errors ?? ""}
                error={faults["thresholds/rate_limit_errors"]}
                onChange={(value) => setErrors(numberOf(value))}
                required
              />
              <NumberInput
                label="Within"
                suffix=" seconds"
                min={1}
                max={86_400}
                value={within ?? ""}
                error={faults["thresholds/rate_limit_within"]}
                onChange={(value) => setWithin(numberOf(value))}
                required
              />
            </SimpleGrid>
          ) : null}
          <Switch label="Enabled" checked={enabled} onChange={(event) => setEnabled(event.currentTarget.checked)} />
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              Cancel
            </Button>
            <Button type="submit" loading={save.isPending} disabled={events.length === 0}>
              Save
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}

function secretNote(target: TargetOut | null, keeps: boolean): string {
  if (keeps) return "Leave empty to keep the current secret. It is never shown";
  if (target?.has_secret) return "A renamed webhook needs its secret again, at least 16 characters";
  return "Signs what is sent. At least 16 characters. It is never shown again";
}

function newSecret(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(24)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function numberOf(value: string | number): number | null {
  return typeof value === "number" ? value : null;
}
