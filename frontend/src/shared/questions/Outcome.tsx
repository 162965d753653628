import { Alert, Text } from "@mantine/core";
import { IconCircleCheck, IconCircleOff } from "@tabler/icons-react";
import type { Ref } from "react";
import type { QuestionOut } from "../api/schema";
import { fullMoment, moment } from "../format/times";
import classes from "./question.module.css";
import { Value } from "./QuestionContent";

/** What became of a question that is no longer open. */
export function Outcome({ question, ref }: { question: QuestionOut; ref: Ref<HTMLDivElement> }) {
  const { state, decision, answer } = question;
  if (state === "closed") {
    return (
      <Alert
        ref={ref}
        tabIndex={-1}
        className={classes.outcome}
        color="gray"
        role="status"
        icon={<IconCircleOff aria-hidden />}
        title="Nobody waits for an answer any more"
      >
        <span style={{ overflowWrap: "anywhere" }}>{sentence(question.closed_reason ?? "It was closed")}</span>
      </Alert>
    );
  }
  return (
    <Alert
      ref={ref}
      tabIndex={-1}
      className={classes.outcome}
      color={decision === "reject" ? "gray" : "green"}
      role="status"
      icon={<IconCircleCheck aria-hidden />}
      title={title(question)}
    >
      <Text size="sm" c="dimmed" title={fullMoment(question.answered_at)}>
        {moment(question.answered_at)}
        {question.answered_via === "airflow" ? ", in Airflow" : ""}
      </Text>
      {decision === null ? (
        <div style={{ marginTop: 8 }}>
          <Value value={answer} label="the answer" />
        </div>
      ) : null}
    </Alert>
  );
}

function title({ answered_by: by, answered_via: via, decision, kind }: QuestionOut): string {
  if (via === "timeout") return "Nobody answered in time, and the default was taken";
  const verb =
    kind === "breakpoint"
      ? { approve: "let it go on", reject: "stopped it" }
      : { approve: "approved", reject: "rejected" };
  return `${by ?? "Someone"} ${decision === "approve" || decision === "reject" ? verb[decision] : "answered"}`;
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}
