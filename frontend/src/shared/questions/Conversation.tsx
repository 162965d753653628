import { Button, Collapse, Group, Skeleton, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconChevronDown } from "@tabler/icons-react";
import { queryOptions, useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { answer, api } from "../api/client";
import { asProblem } from "../api/problem";
import type { QuestionOut } from "../api/schema";
import { JsonView } from "../ui/JsonView";
import { ProblemAlert } from "../ui/ProblemAlert";
import { type Message, messagesIn } from "./messages";
import classes from "./question.module.css";

/** Nodes whose output is read, the latest ones. */
const NODES = 12;

/** The messages that the agent has exchanged so far; without any, the agent's input and what its nodes wrote. */
const conversationQuery = (question: QuestionOut) =>
  queryOptions({
    queryKey: ["conversation", question.question_id],
    queryFn: async () => {
      const path = { dag_id: question.dag_id, dag_run_id: question.dag_run_id };
      const query = { task_id: question.task_id, map_index: question.map_index, limit: 100 };
      const { agents } = await answer(
        api.GET("/workflow-status/{dag_id}/{dag_run_id}/agents", { params: { path, query } }),
      );
      const own = agents.filter((row) => row.agent === question.agent);
      const rows = [
        ...own.filter((row) => row.node === null).slice(0, 1),
        ...own
          .filter((row) => row.node !== null && row.state === "success")
          .slice(0, NODES)
          .toReversed(),
      ];
      const traces = await Promise.all(
        rows.map((row) =>
          answer(
            api.GET("/workflow-status/{dag_id}/{dag_run_id}/traces/{trace_id}", {
              params: { path: { ...path, trace_id: row.id } },
            }),
          ),
        ),
      );
      const steps = traces.map((trace): [name: string, value: unknown] =>
        trace.node === null ? ["input", trace.input] : [trace.node, trace.output],
      );
      return { messages: steps.flatMap(([, value]) => messagesIn(value)), steps: Object.fromEntries(steps) };
    },
    staleTime: 60_000,
  });

/** What was said before the agent asked, read when someone wants to see it. `children` stand beside its button. */
export function Conversation({ question, children }: { question: QuestionOut; children: ReactNode }) {
  const [opened, { toggle }] = useDisclosure();
  return (
    <div>
      <Group justify="space-between" gap="xs">
        <Button
          variant="subtle"
          color="gray"
          size="xs"
          px={6}
          ml={-6}
          mih={36}
          onClick={toggle}
          aria-expanded={opened}
          rightSection={<IconChevronDown size={14} aria-hidden style={{ rotate: opened ? "180deg" : undefined }} />}
        >
          What happened before
        </Button>
        {children}
      </Group>
      <Collapse expanded={opened}>{opened ? <Before question={question} /> : null}</Collapse>
    </div>
  );
}

function Before({ question }: { question: QuestionOut }) {
  const query = useQuery(conversationQuery(question));
  if (query.isPending) return <Skeleton h={80} role="status" aria-busy="true" aria-label="Loading the conversation" />;
  if (query.error) {
    if (asProblem(query.error).status === 404) {
      return (
        <Text size="sm" c="dimmed">
          You see this question because it is assigned to you, but not its run.
        </Text>
      );
    }
    return <ProblemAlert error={query.error} onRetry={() => void query.refetch()} />;
  }
  const { messages, steps } = query.data;
  if (messages.length > 0) return <Messages messages={messages} />;
  if (Object.keys(steps).length === 0) {
    return (
      <Text size="sm" c="dimmed">
        Nothing is recorded of what the agent did before.
      </Text>
    );
  }
  return (
    <Stack gap="xs">
      <Text size="sm" c="dimmed">
        The agent&apos;s input, and what its nodes wrote:
      </Text>
      <JsonView value={steps} label="what happened before" />
    </Stack>
  );
}

function Messages({ messages }: { messages: readonly Message[] }) {
  return (
    <ol
      className={classes.messages}
      // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex -- a scrollable box must be reachable by keyboard
      tabIndex={0}
      aria-label="The conversation so far"
    >
      {messages.map((message, index) => (
        <li key={index} data-role={message.role}>
          <Text size="xs" c="dimmed" fw={550}>
            {message.role}
            {message.name ? ` ${message.name}` : ""}
          </Text>
          {message.text}
          {message.calls.map((call, at) => (
            <Text key={at} size="sm" className="mono">
              {call}
            </Text>
          ))}
        </li>
      ))}
    </ol>
  );
}
