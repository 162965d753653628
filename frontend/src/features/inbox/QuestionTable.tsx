import { Table } from "@mantine/core";
import { Link } from "@tanstack/react-router";
import type { KeyboardEvent } from "react";
import type { QuestionOut } from "@/shared/api/schema";
import { ago, fullMoment } from "@/shared/format/times";
import { KindBadge } from "@/shared/questions/KindBadge";
import { expiry } from "@/shared/questions/Question";
import { cell, DataTable, TablePanel } from "@/shared/ui/DataTable";
import rows from "@/shared/ui/rows.module.css";
import { useNow } from "@/shared/ui/useNow";
import classes from "./QuestionTable.module.css";
import { filtersOf, type InboxSearch } from "./search";

interface Props {
  questions: QuestionOut[];
  /** The list's search, which the question's page leads back to. */
  search: InboxSearch;
  /** Called with a step when an arrow key is pressed in the list. */
  onStep: (step: 1 | -1) => void;
}

/** Questions as rows; each row links to the question. */
export function QuestionTable({ questions, search, onStep }: Props) {
  const now = useNow(10_000);
  const { state } = filtersOf(search);
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    event.preventDefault();
    onStep(event.key === "ArrowDown" ? 1 : -1);
  };
  return (
    <TablePanel>
      <DataTable
        aria-label="Questions"
        minWidth={760}
        onKeyDown={onKeyDown}
        head={
          <>
            <Table.Th visibleFrom="sm">Kind</Table.Th>
            <Table.Th>Question</Table.Th>
            <Table.Th visibleFrom="sm">For</Table.Th>
            <Table.Th visibleFrom="sm">{state === "answered" ? "Answered" : "Asked"}</Table.Th>
            <Table.Th visibleFrom="sm">{LAST[state]}</Table.Th>
          </>
        }
      >
        {questions.map((question) => (
          <Row key={question.question_id} question={question} search={search} now={now} state={state} />
        ))}
      </DataTable>
    </TablePanel>
  );
}

/** The last column's heading. */
const LAST = { open: "Expires", answered: "By", closed: "Closed because" };

interface RowProps {
  question: QuestionOut;
  search: InboxSearch;
  now: number;
  state: QuestionOut["state"];
}

function Row({ question, search, now, state }: RowProps) {
  const { assignees, expires_at: due } = question;
  const place = [question.agent, question.node].filter(Boolean).join(" › ");
  const who = assignees.length > 0 ? assignees.join(", ") : null;
  const answered = state === "answered";
  const when = answered ? question.answered_at : question.asked_at;
  const by = question.answered_by ?? (question.answered_via === "timeout" ? "the default" : "–");
  return (
    <Table.Tr className={`${rows.row} ${classes.row}`}>
      <Table.Td visibleFrom="sm">
        <KindBadge question={question} />
      </Table.Td>
      <Table.Td className={cell.wide}>
        <Link
          to="/inbox/$questionId"
          params={{ questionId: question.question_id }}
          search={search}
          className={rows.link}
          data-question={question.question_id}
          title={question.subject}
        >
          {question.subject}
        </Link>
        <span className={classes.facts}>
          {question.dag_id} · {place}
        </span>
        <span className={`${classes.facts} mantine-hidden-from-sm`}>
          {answered ? `answered ${ago(when, now)} by ${by}` : `asked ${ago(when, now)}`}
          {who ? ` · for ${who}` : ""}
          {state === "closed" ? ` · ${question.closed_reason}` : ""}
          {state === "open" && due ? <span className={classes.due}> · {expiry(due, now)}</span> : null}
        </span>
      </Table.Td>
      <Table.Td visibleFrom="sm" maw={200} style={{ overflow: "hidden", textOverflow: "ellipsis" }} title={who ?? ""}>
        {who ?? "–"}
      </Table.Td>
      <Table.Td visibleFrom="sm" title={fullMoment(when)}>
        {ago(when, now)}
      </Table.Td>
      {state === "open" ? (
        <Table.Td visibleFrom="sm" title={fullMoment(due)}>
          {due ? <span className={classes.due}>{expiry(due, now).replace("expires ", "")}</span> : "–"}
        </Table.Td>
      ) : (
        <Table.Td visibleFrom="sm">{answered ? by : question.closed_reason}</Table.Td>
      )}
    </Table.Tr>
  );
}
