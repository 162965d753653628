import { Button, Center, Paper, Skeleton, Stack } from "@mantine/core";
import { IconFilterOff, IconInbox } from "@tabler/icons-react";
import { keepPreviousData, useInfiniteQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { useEffect, useRef } from "react";
import { questionsQuery } from "@/shared/questions/queries";
import { EmptyState } from "@/shared/ui/EmptyState";
import { PageHeader } from "@/shared/ui/PageHeader";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { InboxFilters } from "./InboxFilters";
import { KeyHelp } from "./KeyHelp";
import { lastOpened } from "./last-opened";
import { QuestionTable } from "./QuestionTable";
import { filtersOf } from "./search";
import { useKeys } from "./useKeys";

const route = getRouteApi("/signed-in/inbox");

/** What runs wait for from people, live. */
export function InboxPage() {
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const list = useInfiniteQuery({ ...questionsQuery(filtersOf(search)), placeholderData: keepPreviousData });
  const questions = list.data?.pages.flatMap((page) => page.questions) ?? [];
  const box = useRef<HTMLDivElement>(null);
  const links = () => [...(box.current?.querySelectorAll<HTMLElement>("[data-question]") ?? [])];
  const step = (by: 1 | -1) => {
    const all = links();
    const at = all.findIndex((link) => link === document.activeElement);
    all[at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + by))]?.focus();
  };
  useKeys({ j: () => step(1), k: () => step(-1) });
  const shown = list.isSuccess;
  useEffect(() => {
    // Who comes back from a question is where they left.
    if (!shown) return;
    const left = lastOpened.take();
    links()
      .find((link) => link.dataset.question === left)
      ?.focus({ preventScroll: false });
  }, [shown]);
  const filtered = search.dag !== undefined || search.run !== undefined || search.age !== undefined;
  const change = (next: typeof search) => void navigate({ search: next, replace: true });

  return (
    <>
      <PageHeader title="Inbox" subtitle="What runs wait for from people. An answer counts once.">
        <KeyHelp />
      </PageHeader>
      <Stack gap="md" ref={box}>
        <InboxFilters filters={search} onChange={change} />
        {list.isError ? <ProblemAlert error={list.error} onRetry={() => void list.refetch()} /> : null}
        {list.isPending ? (
          <Paper p="md" role="status" aria-busy="true" aria-label="Loading questions">
            <Stack gap="sm">
              {Array.from({ length: 6 }, (_, index) => (
                <Skeleton key={index} h={38} />
              ))}
            </Stack>
          </Paper>
        ) : null}
        {list.isSuccess && questions.length === 0 ? (
          <Paper>
            {filtered ? (
              <EmptyState
                icon={IconFilterOff}
                title="No questions match these filters"
                action={
                  <Button variant="default" onClick={() => change(search.show ? { show: search.show } : {})}>
                    Remove the filters
                  </Button>
                }
              >
                Others may be waiting.
              </EmptyState>
            ) : (
              <EmptyState icon={IconInbox} title={EMPTY[search.show ?? "open"].title}>
                {EMPTY[search.show ?? "open"].text}
              </EmptyState>
            )}
          </Paper>
        ) : null}
        {questions.length > 0 ? <QuestionTable questions={questions} search={search} onStep={step} /> : null}
        {list.hasNextPage ? (
          <Center>
            <Button variant="default" loading={list.isFetchingNextPage} onClick={() => void list.fetchNextPage()}>
              Show more
            </Button>
          </Center>
        ) : null}
      </Stack>
    </>
  );
}

const EMPTY = {
  open: { title: "Nobody waits for an answer", text: "When a graph asks people, its question appears here." },
  mine: {
    title: "Nothing waits for you",
    text: "Questions that name you appear here. All open has those of your runs too.",
  },
  answered: { title: "Nothing has been answered yet", text: "Questions and their answers stay here." },
  closed: { title: "No question was closed", text: "A question that nobody answered before its run ended is here." },
};
