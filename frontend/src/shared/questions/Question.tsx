import { Paper, Skeleton, Text, Title } from "@mantine/core";
import { IconClock, IconHourglass, IconRobot, IconUsers } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { asProblem } from "../api/problem";
import type { QuestionOut } from "../api/schema";
import { ago, duration, fullMoment } from "../format/times";
import { AnchorLink } from "../ui/links";
import { ProblemAlert } from "../ui/ProblemAlert";
import { useNow } from "../ui/useNow";
import { AnswerPanel } from "./AnswerPanel";
import { AssignButton } from "./AssignButton";
import { Conversation } from "./Conversation";
import { KindBadge } from "./KindBadge";
import { QuestionContent } from "./QuestionContent";
import classes from "./question.module.css";
import { questionQuery } from "./queries";

interface Props {
  id: string;
  /** Whether it stands on its run's page, which has its subject as a heading and needs no link to the run. */
  onRunPage?: boolean;
  /** Shown if there is no such question, or if the reader may not see it. */
  missing: ReactNode;
}

/** A question with its context, and its answer: live, so that two people who look at it see what the other one does. */
export function Question({ id, onRunPage = false, missing }: Props) {
  const query = useQuery(questionQuery(id));
  const question = query.data;
  if (query.isPending) return <Skeleton h={220} role="status" aria-busy="true" aria-label="Loading the question" />;
  if (!question) {
    const gone = [404, 422].includes(asProblem(query.error).status);
    return gone ? missing : <ProblemAlert error={query.error} onRetry={() => void query.refetch()} />;
  }
  return (
    <Paper component="article" p={{ base: "sm", sm: "lg" }} aria-label={question.subject} className={classes.question}>
      {onRunPage ? null : (
        <div>
          <KindBadge question={question} />
          <Title order={1} mt={6} tabIndex={-1} style={{ overflowWrap: "anywhere", outline: "none" }}>
            {question.subject}
          </Title>
        </div>
      )}
      <Facts question={question} onRunPage={onRunPage} />
      <QuestionContent question={question} />
      <Conversation question={question}>
        {question.state === "open" && question.refusal === null ? <AssignButton question={question} /> : null}
      </Conversation>
      <AnswerPanel key={question.question_id} question={question} />
    </Paper>
  );
}

function Facts({ question, onRunPage }: { question: QuestionOut; onRunPage: boolean }) {
  const open = question.state === "open";
  const now = useNow(10_000, open);
  const task = question.map_index < 0 ? question.task_id : `${question.task_id}[${question.map_index}]`;
  return (
    <div className={classes.facts}>
      {onRunPage ? null : (
        <AnchorLink
          to="/runs/$dagId/$runId"
          params={{ dagId: question.dag_id, runId: question.dag_run_id }}
          inherit
          title={question.dag_run_id}
        >
          {question.dag_id}
        </AnchorLink>
      )}
      <span>
        <IconRobot size={15} aria-hidden />
        {[question.agent, question.node].filter(Boolean).join(" › ")} in {task}
        {question.item === null ? "" : `, input ${question.item}`}
      </span>
      <span title={fullMoment(question.asked_at)}>
        <IconClock size={15} aria-hidden />
        asked {ago(question.asked_at, now)}
      </span>
      {open && question.expires_at ? (
        <span title={fullMoment(question.expires_at)} className={classes.due}>
          <IconHourglass size={15} aria-hidden />
          {expiry(question.expires_at, now)}
        </span>
      ) : null}
      {question.assignees.length > 0 ? (
        <span>
          <IconUsers size={15} aria-hidden />
          for {question.assignees.join(", ")}
        </span>
      ) : null}
      {question.four_eyes ? (
        <Text component="span" inherit>
          somebody else than the run&apos;s user has to answer
        </Text>
      ) : null}
    </div>
  );
}

/** Until when a question waits: expires in 2 h 10 min. */
export function expiry(expiresAt: string, now: number): string {
  const left = (Date.parse(expiresAt) - now) / 1000;
  return left > 0 ? `expires in ${left < 60 ? "less than a minute" : duration(left)}` : "has expired";
}
