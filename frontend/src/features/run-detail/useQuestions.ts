import { keepPreviousData, useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useMemo, useState } from "react";
import type { QuestionOut } from "@/shared/api/schema";
import { questionsQuery } from "@/shared/questions/queries";
import type { WatchedRun } from "@/shared/stream/useRun";

/**
 * The run's questions: `open` ones, and as `shown` also those that were open while this page has been looked at, so that
 * none disappears under the hands of whoever is answering it.
 */
export function useQuestions({ snapshot, model }: WatchedRun) {
  const client = useQueryClient();
  const asks = model.asked > 0 || [...model.tasks.values()].some((task) => task.state === "awaiting_input");
  const filters = { dag: snapshot.dag_id, run: snapshot.dag_run_id };
  const list = useInfiniteQuery({ ...questionsQuery(filters), enabled: asks, placeholderData: keepPreviousData });
  const [known, setKnown] = useState<ReadonlyMap<string, QuestionOut>>(new Map());
  useEffect(() => {
    // The stream says that someone has asked or answered; the list and each question say what.
    if (model.asked > 0) void client.invalidateQueries({ queryKey: ["questions"] });
  }, [client, model.asked, model.state]);
  const open = useMemo(() => list.data?.pages.flatMap((page) => page.questions) ?? [], [list.data]);
  if (open.some((one) => !known.has(one.question_id))) {
    setKnown(new Map([...known, ...open.map((one) => [one.question_id, one] as const)]));
  }
  const shown = useMemo(() => [...known.values()], [known]);
  return { open, shown, more: list.hasNextPage };
}
