import { Button, Group } from "@mantine/core";
import { useDocumentTitle } from "@mantine/hooks";
import { IconArrowLeft, IconArrowRight, IconMapPinOff } from "@tabler/icons-react";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { useEffect, useRef } from "react";
import type { QuestionOut } from "@/shared/api/schema";
import { Question } from "@/shared/questions/Question";
import { questionQuery, questionsQuery } from "@/shared/questions/queries";
import { EmptyState } from "@/shared/ui/EmptyState";
import { ButtonLink } from "@/shared/ui/links";
import { KeyHelp } from "./KeyHelp";
import { lastOpened } from "./last-opened";
import { filtersOf } from "./search";
import { useKeys } from "./useKeys";

const route = getRouteApi("/signed-in/inbox/$questionId");

/** One question: messages to people link here. */
export function QuestionPage() {
  const { questionId } = route.useParams();
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const box = useRef<HTMLDivElement>(null);
  const question = useQuery(questionQuery(questionId)).data;
  const list = useInfiniteQuery(questionsQuery(filtersOf(search)));
  const others = (list.data?.pages ?? []).flatMap((page) => page.questions);
  // By their place in time: an answered question leaves the list, and its neighbours are still its neighbours.
  const isAfter = (one: QuestionOut) => question !== undefined && placeOf(one) > placeOf(question);
  const isBefore = (one: QuestionOut) => question !== undefined && placeOf(one) < placeOf(question);
  const newestFirst = filtersOf(search).state !== "open";
  const next = others.find(newestFirst ? isBefore : isAfter)?.question_id;
  const previous = others.findLast(newestFirst ? isAfter : isBefore)?.question_id;
  const known = question !== undefined;
  useDocumentTitle(`${question?.subject ?? "Question"} · LangGraph Flow`);
  useEffect(() => {
    lastOpened.set(questionId);
    if (known) box.current?.querySelector<HTMLElement>("h1")?.focus({ preventScroll: true });
  }, [questionId, known]);
  const open = (id: string | undefined) => {
    if (id !== undefined) void navigate({ to: "/inbox/$questionId", params: { questionId: id }, search });
  };
  useKeys({
    j: () => open(next),
    k: () => open(previous),
    u: () => void navigate({ to: "/inbox", search }),
    e: () => box.current?.querySelector<HTMLElement>("form :is(textarea, input, button):not(:disabled)")?.focus(),
  });
  return (
    <div ref={box} style={{ maxWidth: 860 }}>
      <Group justify="space-between" mb="sm" gap="xs">
        <ButtonLink
          to="/inbox"
          search={search}
          variant="subtle"
          color="gray"
          px={8}
          ml={-8}
          mih={40}
          leftSection={<IconArrowLeft size={16} aria-hidden />}
        >
          Inbox
        </ButtonLink>
        <Group gap="xs">
          <KeyHelp />
          <Button
            variant="default"
            mih={40}
            disabled={next === undefined}
            rightSection={<IconArrowRight size={16} aria-hidden />}
            onClick={() => open(next)}
          >
            Next question
          </Button>
        </Group>
      </Group>
      <Question
        key={questionId}
        id={questionId}
        missing={
          <EmptyState
            icon={IconMapPinOff}
            title="Question not found"
            action={<ButtonLink to="/inbox">Go to the inbox</ButtonLink>}
          >
            It may have been deleted with its run, or be for someone else.
          </EmptyState>
        }
      />
    </div>
  );
}

/** What questions are ordered by. */
function placeOf({ asked_at: asked, question_id: id }: QuestionOut): string {
  return `${new Date(asked).toISOString()} ${asked} ${id}`;
}
