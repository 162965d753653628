import { Button, Group, Modal, Stack, TagsInput, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { notifications } from "@mantine/notifications";
import { IconUserShare } from "@tabler/icons-react";
import { useState } from "react";
import { answer, api } from "../api/client";
import { asProblem } from "../api/problem";
import type { QuestionOut } from "../api/schema";
import { ProblemAlert } from "../ui/ProblemAlert";
import { useQuestionChange } from "./queries";

/** Hands a question on to others. */
export function AssignButton({ question }: { question: QuestionOut }) {
  const [opened, { open, close }] = useDisclosure();
  return (
    <>
      <Button variant="default" size="xs" mih={36} leftSection={<IconUserShare size={15} aria-hidden />} onClick={open}>
        Hand on
      </Button>
      <Modal opened={opened} onClose={close} title="Hand this question on" closeButtonProps={{ "aria-label": "Close" }}>
        <Assignees question={question} onDone={close} />
      </Modal>
    </>
  );
}

function Assignees({ question, onDone }: { question: QuestionOut; onDone: () => void }) {
  const [names, setNames] = useState(question.assignees);
  const [typed, setTyped] = useState("");
  const assign = useQuestionChange(question.question_id, (assignees: string[]) =>
    answer(
      api.POST("/questions/{question_id}/assign", {
        params: { path: { question_id: question.question_id } },
        body: { assignees },
      }),
    ),
  );
  // A name that was typed and not yet confirmed counts as well.
  const all = [...new Set([...names, typed.trim()].filter(Boolean))];
  const faults = assign.error ? asProblem(assign.error).faults : [];
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (all.length === 0) return;
        assign.mutate(all, {
          onSuccess: () => {
            notifications.show({ message: `The question is now for ${all.join(", ")}.` });
            onDone();
          },
        });
      }}
    >
      <Stack>
        {assign.error && faults.length === 0 ? <ProblemAlert error={assign.error} /> : null}
        <TagsInput
          label="To"
          description="Users' names in Airflow. Only they and Admins may answer then"
          value={names}
          onChange={setNames}
          searchValue={typed}
          onSearchChange={setTyped}
          splitChars={[",", " ", ";"]}
          acceptValueOnBlur
          maxTags={100}
          error={faults.length > 0 ? faults.map((fault) => fault.detail).join(". ") : null}
          data-autofocus
          autoCapitalize="none"
          spellCheck={false}
        />
        {question.four_eyes ? (
          <Text size="sm" c="dimmed">
            The run&apos;s own user may not answer.
          </Text>
        ) : null}
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={onDone}>
            Cancel
          </Button>
          <Button type="submit" loading={assign.isPending} disabled={all.length === 0}>
            Hand on
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
