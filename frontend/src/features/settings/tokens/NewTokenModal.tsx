import { Button, Checkbox, Group, Modal, NumberInput, Stack, Text, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { answer, api } from "@/shared/api/client";
import { useMe } from "@/shared/api/session";
import type { NewToken } from "@/shared/api/schema";
import { CopyButton } from "@/shared/ui/CopyButton";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { dagIds } from "./standing";

type Scope = NewToken["scopes"][number];

const SCOPES: { value: Scope; label: string }[] = [
  { value: "read", label: "Read what you see" },
  { value: "trigger", label: "Start runs" },
  { value: "stop", label: "Stop and retry runs" },
];

/** Creates a service token, and shows it this once. */
export function NewTokenModal({ onClose }: { onClose: () => void }) {
  const starts = useMe().may_trigger;
  const client = useQueryClient();
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState<Scope[]>(["read"]);
  const [dags, setDags] = useState("");
  const [days, setDays] = useState<number | string>(90);
  const create = useMutation({
    mutationFn: (body: NewToken) => answer(api.POST("/tokens", { body })),
    onSuccess: () => client.invalidateQueries({ queryKey: ["tokens"] }),
  });
  const made = create.data;
  return (
    <Modal opened onClose={onClose} title="Create a service token" closeButtonProps={{ "aria-label": "Close" }}>
      {made ? (
        <Stack>
          <Text>Copy the token now; it won&apos;t be shown again.</Text>
          <Group gap={6} wrap="nowrap">
            <Text size="sm" className="mono" style={{ overflowWrap: "anywhere" }}>
              {made.token}
            </Text>
            <CopyButton text={made.token} label="Copy token" />
          </Group>
          <Group justify="flex-end">
            <Button onClick={onClose}>Done</Button>
          </Group>
        </Stack>
      ) : (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            create.mutate({ name: name.trim(), scopes, dag_ids: dagIds(dags), expires_in_days: Number(days) || 90 });
          }}
        >
          <Stack>
            {create.error ? <ProblemAlert error={create.error} /> : null}
            <TextInput
              label="Name"
              description="What the token is for"
              placeholder="nightly import"
              required
              maxLength={100}
              value={name}
              onChange={(event) => setName(event.currentTarget.value)}
              data-autofocus
            />
            <Checkbox.Group
              label="May"
              required
              value={scopes}
              error={scopes.length === 0 ? "Select at least one." : undefined}
              onChange={(values) => setScopes(values)}
            >
              <Stack gap="xs" mt="xs">
                {SCOPES.map((one) => (
                  <Checkbox
                    key={one.value}
                    value={one.value}
                    label={one.label}
                    disabled={one.value !== "read" && !starts}
                  />
                ))}
              </Stack>
            </Checkbox.Group>
            <TextInput
              label="Only these workflows"
              description="Their ids, separated by commas. Empty: all that you may use"
              value={dags}
              onChange={(event) => setDags(event.currentTarget.value)}
            />
            <NumberInput
              label="Valid for days"
              min={1}
              max={366}
              allowDecimal={false}
              value={days}
              onChange={setDays}
            />
            <Group justify="flex-end">
              <Button variant="default" onClick={onClose}>
                Cancel
              </Button>
              <Button type="submit" loading={create.isPending} disabled={scopes.length === 0}>
                Create
              </Button>
            </Group>
          </Stack>
        </form>
      )}
    </Modal>
  );
}
