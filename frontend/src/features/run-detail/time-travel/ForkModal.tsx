import { Button, Collapse, Group, JsonInput, Modal, Stack, Text, Textarea, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconGitFork } from "@tabler/icons-react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { answer, api } from "@/shared/api/client";
import { parse, stringify } from "@/shared/api/exact-json";
import { useRequestKey } from "@/shared/api/useRequestKey";
import type { CheckpointOut, ForkBody, SnapshotOut } from "@/shared/api/schema";
import { userInput } from "@/shared/api/user-input";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { isTruncated } from "../large/truncated";
import type { Place } from "./queries";

interface Props {
  place: Place;
  run: SnapshotOut;
  from: CheckpointOut;
  onClose: () => void;
}

/** Starts a new run from a state of this one, with what is to be different in it. */
export function ForkModal({ place, run, from, onClose }: Props) {
  const navigate = useNavigate();
  const client = useQueryClient();
  const [values, setValues] = useState("");
  const [input, setInput] = useState("");
  const [model, setModel] = useState("");
  const [prompt, setPrompt] = useState("");
  const [asNode, setAsNode] = useState("");
  const [more, { toggle }] = useDisclosure();
  const key = useRequestKey();
  const fork = useMutation({
    mutationFn: (body: ForkBody) => {
      return answer(
        api.POST("/workflows/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/fork", {
          params: {
            path: { dag_id: place.dagId, dag_run_id: place.runId, task_id: place.taskId },
            header: { "idempotency-key": key.of(body) },
          },
          body,
        }),
      );
    },
    onSuccess: async ({ dag_id, dag_run_id }) => {
      void client.invalidateQueries({ queryKey: ["runs"] });
      await navigate({ to: "/runs/$dagId/$runId", params: { dagId: dag_id, runId: dag_run_id } });
    },
  });
  const given = { values: objectOf(values), input: objectOf(input) };
  const broken = given.values === null || given.input === null;
  const next = from.next.filter((name) => name !== "__start__");
  return (
    <Modal opened onClose={onClose} title="Fork from here" size="lg" closeButtonProps={{ "aria-label": "Close" }}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          fork.mutate({
            checkpoint_id: from.checkpoint_id,
            map_index: place.mapIndex,
            ...(given.values ? { values: given.values } : {}),
            ...(given.input ? { input_data: given.input } : {}),
            ...(asNode.trim() ? { as_node: asNode.trim() } : {}),
            ...(model.trim() ? { model: model.trim() } : {}),
            ...(prompt.trim() ? { system_prompt: prompt } : {}),
          });
        }}
      >
        <Stack>
          {fork.error ? <ProblemAlert error={fork.error} /> : null}
          <Text size="sm">
            A new run goes on from this state
            {next.length > 0 ? (
              <>
                {" "}
                with <b>{next.join(", ")}</b>
              </>
            ) : null}
            . What was paid for before isn&apos;t paid for again.
          </Text>
          <JsonInput
            label="Change values of the state"
            description="As the graph's reducers take them: a list of messages, for example, is appended. Empty: as they are"
            placeholder={'{"draft": "…"}'}
            value={values}
            onChange={setValues}
            error={given.values === null ? "This isn't a JSON object yet." : null}
            autosize
            minRows={2}
            maxRows={12}
            styles={{ input: { fontFamily: "var(--mantine-font-family-monospace)" } }}
          />
          <TextInput
            label="Model"
            description="Empty: the same"
            placeholder="openai:gpt-4.1"
            value={model}
            onChange={(event) => setModel(event.currentTarget.value)}
          />
          <Textarea
            label="System prompt"
            description="Empty: the same"
            value={prompt}
            onChange={(event) => setPrompt(event.currentTarget.value)}
            autosize
            minRows={2}
            maxRows={10}
          />
          <div>
            <Button variant="subtle" size="compact-sm" onClick={toggle} aria-expanded={more}>
              {more ? "Less" : "Another input, and more"}
            </Button>
          </div>
          <Collapse expanded={more}>
            <Stack>
              <JsonInput
                label="Input of the new run"
                description={
                  isTruncated(run.input_data) ? "All of it, as JSON. Empty: the same" : "All of it. Empty: the same"
                }
                placeholder={isTruncated(run.input_data) ? "{}" : stringify(userInput(run.input_data), 2).slice(0, 400)}
                value={input}
                onChange={setInput}
                error={given.input === null ? "This isn't a JSON object yet." : null}
                autosize
                minRows={2}
                maxRows={12}
                styles={{ input: { fontFamily: "var(--mantine-font-family-monospace)" } }}
              />
              <TextInput
                label="Write the values as this node"
                description="Empty: as the node that wrote the state. The nodes that follow it run next"
                value={asNode}
                onChange={(event) => setAsNode(event.currentTarget.value)}
              />
            </Stack>
          </Collapse>
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              Cancel
            </Button>
            <Button
              type="submit"
              loading={fork.isPending}
              disabled={broken}
              leftSection={<IconGitFork size={16} aria-hidden />}
            >
              Start the fork
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}

/** A JSON object that is being written: undefined while empty, null while it is none. */
export function objectOf(text: string): Record<string, unknown> | null | undefined {
  if (text.trim() === "") return undefined;
  try {
    const value = parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}
