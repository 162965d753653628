import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { answer, api } from "@/shared/api/client";
import type { TemplatesSearch } from "./search";

const PAGE = 50;

export function templatesQuery({ q, dag, show }: TemplatesSearch) {
  return infiniteQueryOptions({
    queryKey: ["templates", "list", { q, dag, show }],
    queryFn: ({ pageParam }) =>
      answer(
        api.GET("/templates", {
          params: {
            query: {
              limit: PAGE,
              ...(q ? { q } : {}),
              ...(dag ? { dag_id: dag } : {}),
              ...(show === "all" ? {} : { active: show !== "retired" }),
              ...(pageParam ? { cursor: pageParam } : {}),
            },
          },
        }),
      ),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
  });
}

/** A template's versions without their definitions, newest first. */
export const versionsQuery = (name: string) =>
  infiniteQueryOptions({
    queryKey: ["templates", "versions", name],
    queryFn: ({ pageParam }) =>
      answer(
        api.GET("/templates/{name}/versions", {
          params: { path: { name }, query: { limit: PAGE, ...(pageParam ? { cursor: Number(pageParam) } : {}) } },
        }),
      ),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
  });

/** The JSON Schema of a definition. */
export const schemaQuery = queryOptions({
  queryKey: ["templates", "schema"],
  queryFn: () => answer(api.GET("/templates/schema")),
  staleTime: Infinity,
});
