import { infiniteQueryOptions, queryOptions, useMutation, useQueryClient } from "@tanstack/react-query";
import { answer, api } from "../api/client";
import { asProblem } from "../api/problem";
import type { AnswerBody, QuestionOut } from "../api/schema";
import { useRequestKey } from "../api/useRequestKey";

/** Which questions are listed. */
export interface QuestionFilters {
  state?: QuestionOut["state"] | undefined;
  mine?: boolean | undefined;
  dag?: string | undefined;
  run?: string | undefined;
  /** Seconds since they were asked. */
  olderThan?: number | undefined;
}

const PAGE = 50;
/** Milliseconds between two looks for what others have done. */
const OPEN = 10_000;
const LISTED = 15_000;
const COUNTED = 30_000;

/** Questions page by page: open ones in the order in which they were asked, all others the newest first. */
export function questionsQuery({ state = "open", mine, dag, run, olderThan }: QuestionFilters) {
  return infiniteQueryOptions({
    queryKey: ["questions", "list", { state, mine, dag, run, olderThan }],
    queryFn: ({ pageParam }) =>
      answer(
        api.GET("/questions", {
          params: {
            query: {
              state,
              limit: PAGE,
              order: state === "open" ? "oldest" : "newest",
              ...(mine ? { mine } : {}),
              ...(dag ? { dag_id: dag } : {}),
              ...(run ? { dag_run_id: run } : {}),
              ...(olderThan ? { older_than: olderThan } : {}),
              ...(pageParam ? { cursor: pageParam } : {}),
            },
          },
        }),
      ),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
    refetchInterval: LISTED,
    refetchOnWindowFocus: true,
  });
}

/** How many questions are open, as a badge shows it: "7", "50+", or null for none. */
export const openCountQuery = queryOptions({
  queryKey: ["questions", "count"],
  queryFn: async () => {
    const page = await answer(api.GET("/questions", { params: { query: { limit: PAGE } } }));
    const count = page.questions.length;
    return page.next_cursor ? `${PAGE}+` : count > 0 ? String(count) : null;
  },
  refetchInterval: COUNTED,
  refetchOnWindowFocus: true,
});

/** One question with all of its content. */
export const questionQuery = (id: string) =>
  queryOptions({
    queryKey: ["questions", "one", id],
    queryFn: () => answer(api.GET("/questions/{question_id}", { params: { path: { question_id: id } } })),
    refetchInterval: ({ state }) => (state.data?.state === "open" ? OPEN : false),
    refetchOnWindowFocus: true,
  });

/**
 * Answers a question. Repeating the request, for example after a lost response, answers once.
 *
 * `onTaken` is called when the answer has been taken, also if nobody looks at the question any more.
 */
export function useAnswer(id: string, onTaken: () => void) {
  const key = useRequestKey();
  return useQuestionChange(id, async (body: AnswerBody) => {
    const question = await answer(
      api.POST("/questions/{question_id}/answer", {
        params: { path: { question_id: id }, header: { "idempotency-key": key.of(body) } },
        body,
      }),
    );
    onTaken();
    return question;
  });
}

/** A change of a question. What it has become is shown, also if others were first. */
export function useQuestionChange<Body>(id: string, send: (body: Body) => Promise<QuestionOut>) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: send,
    onSuccess: (question) => {
      client.setQueryData(questionQuery(id).queryKey, question);
      void client.invalidateQueries({ queryKey: ["questions"] });
    },
    onError: (error) => {
      if ([403, 404, 409].includes(asProblem(error).status)) void client.invalidateQueries({ queryKey: ["questions"] });
    },
  });
}
