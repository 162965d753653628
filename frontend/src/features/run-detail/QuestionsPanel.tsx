import { Accordion, Paper, Text, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useId, useState } from "react";
import type { QuestionOut } from "@/shared/api/schema";
import { KindBadge } from "@/shared/questions/KindBadge";
import { Question } from "@/shared/questions/Question";
import { questionQuery } from "@/shared/questions/queries";
import { AnchorLink } from "@/shared/ui/links";
import classes from "./QuestionsPanel.module.css";
import { questionElement } from "./show-question";

interface Props {
  /** Open questions, and those that were open while this page has been looked at. */
  questions: readonly QuestionOut[];
  /** How many of them are open. */
  waiting: number;
  /** Whether the run has more. */
  more: boolean;
}

/** What the run waits for from people, to be answered in place. */
export function QuestionsPanel({ questions, waiting, more }: Props) {
  const heading = useId();
  const [chosen, setChosen] = useState<string | null | undefined>(undefined);
  const [read, setRead] = useState<ReadonlySet<string>>(new Set());
  const [first] = questions;
  if (!first) return null;
  const opened = chosen === undefined ? first.question_id : chosen;
  return (
    <Paper
      component="section"
      aria-labelledby={heading}
      className={classes.panel}
      data-waits={waiting > 0 || undefined}
    >
      <Title order={2} size="h3" id={heading} px="md" pt="sm" pb="xs">
        {waiting === 0 ? "Questions" : waiting === 1 ? "Waits for an answer" : `Waits for ${waiting} answers`}
      </Title>
      <Accordion
        value={opened}
        onChange={(next) => {
          // A question that was opened stays mounted, and with it what has been typed.
          setRead(new Set([...read, ...(opened === null ? [] : [opened])]));
          setChosen(next);
        }}
        classNames={{ item: classes.item, content: classes.content }}
        order={3}
      >
        {questions.map((question) => (
          <Item
            key={question.question_id}
            question={question}
            read={question.question_id === opened || read.has(question.question_id)}
          />
        ))}
      </Accordion>
      {more ? (
        <Text size="sm" px="md" py="sm">
          <AnchorLink to="/inbox" search={{ dag: first.dag_id, run: first.dag_run_id }}>
            All of this run&apos;s questions
          </AnchorLink>
        </Text>
      ) : null}
    </Paper>
  );
}

function Item({ question, read }: { question: QuestionOut; read: boolean }) {
  const id = question.question_id;
  // What has become of it, if it has been read.
  const latest = useQuery({ ...questionQuery(id), enabled: false }).data ?? question;
  return (
    <Accordion.Item value={id} id={questionElement(id)}>
      <Accordion.Control icon={<KindBadge question={latest} iconOnly />}>
        <Text inherit fw={600} className={classes.subject}>
          {question.subject}
        </Text>
      </Accordion.Control>
      <Accordion.Panel>
        {read ? <Question id={id} onRunPage missing={<Text c="dimmed">It was deleted.</Text>} /> : null}
      </Accordion.Panel>
    </Accordion.Item>
  );
}
