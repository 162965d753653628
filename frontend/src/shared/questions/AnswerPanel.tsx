import { Alert, Skeleton } from "@mantine/core";
import { IconLock, IconUserExclamation } from "@tabler/icons-react";
import { lazy, Suspense, useEffect, useRef, useState } from "react";
import { type ApiProblem, asProblem } from "../api/problem";
import type { AnswerBody, QuestionOut } from "../api/schema";
import { ProblemAlert } from "../ui/ProblemAlert";
import { ApprovalForm } from "./ApprovalForm";
import { toolCalls } from "./asks";
import { BreakpointForm } from "./BreakpointForm";
import { useDraft } from "./drafts";
import { FreeForm } from "./FreeForm";
import { Outcome } from "./Outcome";
import { useAnswer } from "./queries";

const SchemaForm = lazy(() => import("./SchemaForm").then((module) => ({ default: module.SchemaForm })));

export interface AnswerFormProps {
  question: QuestionOut;
  disabled: boolean;
  /** Whether the answer is being sent. */
  pending: boolean;
  /** Why the last answer wasn't taken. */
  problem: ApiProblem | null;
  /** What `onTouched` was last called with, before the page was reloaded. */
  kept: unknown;
  /** Called with all that has been typed or chosen, which must not be lost. */
  onTouched: (entered: unknown) => void;
  onSubmit: (body: AnswerBody) => void;
}

/** The form that answers a question, or how it was answered. What has been typed stays if others are first. */
export function AnswerPanel({ question }: { question: QuestionOut }) {
  const draft = useDraft(question.question_id);
  const [touched, setTouched] = useState(draft.kept !== undefined);
  const send = useAnswer(question.question_id, draft.forget);
  const outcome = useRef<HTMLDivElement>(null);
  const problem = send.error ? asProblem(send.error) : null;
  const open = question.state === "open";
  const late = !open && touched && !send.isSuccess;
  const mayAnswer = question.refusal === null;
  const taken = send.isSuccess && !open;
  useEffect(() => {
    // The form that had the focus is gone.
    if (taken) outcome.current?.focus();
  }, [taken]);
  const form: AnswerFormProps = {
    question,
    disabled: !open || !mayAnswer || send.isPending,
    pending: send.isPending,
    problem,
    kept: draft.kept,
    onTouched: (entered) => {
      setTouched(true);
      draft.keep(entered);
    },
    onSubmit: (body) => {
      setTouched(true);
      send.mutate(body);
    },
  };
  return (
    // eslint-disable-next-line jsx-a11y/no-static-element-interactions -- a shortcut of the form within
    <div
      onKeyDown={(event) => {
        if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
        event.preventDefault();
        event.currentTarget.querySelector("form")?.requestSubmit();
      }}
    >
      {open ? null : <Outcome ref={outcome} question={question} />}
      {late ? (
        <Alert
          color="yellow"
          mb="md"
          mt="md"
          role="alert"
          icon={<IconUserExclamation aria-hidden />}
          title="Your answer wasn't sent"
        >
          {problem?.status === 409 ? problem.detail : "Someone else was first."} What you have entered is kept below.
        </Alert>
      ) : null}
      {open && !mayAnswer ? (
        <Alert color="gray" icon={<IconLock aria-hidden />} title="You can't answer this question" mb="md">
          {question.refusal}
        </Alert>
      ) : null}
      {open && problem && !(problem.status === 422 && question.schema) && (problem.status !== 403 || mayAnswer) ? (
        <div style={{ marginBottom: 16 }}>
          <ProblemAlert
            error={problem}
            {...(problem.passing ? { onRetry: () => send.mutate(send.variables ?? {}) } : {})}
          />
        </div>
      ) : null}
      {(open && (mayAnswer || touched)) || late ? <Form {...form} /> : null}
    </div>
  );
}

function Form(props: AnswerFormProps) {
  const { question } = props;
  const approval = toolCalls(question);
  if (approval) return <ApprovalForm {...props} {...approval} />;
  if (question.kind === "breakpoint") return <BreakpointForm {...props} />;
  if (question.schema === null) return <FreeForm {...props} />;
  return (
    <Suspense fallback={<Skeleton h={120} role="status" aria-busy="true" aria-label="Loading the form" />}>
      <SchemaForm {...props} schema={question.schema} />
    </Suspense>
  );
}
