import { queryOptions } from "@tanstack/react-query";
import { answer, api } from "./client";
import { parse } from "./exact-json";
import { problemOf } from "./problem";
import { userInput } from "./user-input";

/** The DAGs that can be triggered. */
export const workflowsQuery = queryOptions({
  queryKey: ["workflows"],
  queryFn: async () => (await answer(api.GET("/workflows"))).workflows,
  staleTime: 30_000,
});

/** A DAG with the schema of its input. */
export const workflowQuery = (dagId: string) =>
  queryOptions({
    queryKey: ["workflows", dagId],
    queryFn: () => answer(api.GET("/workflows/{dag_id}", { params: { path: { dag_id: dagId } } })),
    staleTime: 30_000,
  });

/** The input of a workflow's run, whatever its size. */
export const inputQuery = (dagId: string, runId: string) =>
  queryOptions({
    queryKey: ["inputs", dagId, runId],
    queryFn: async ({ signal }) => {
      const path = `/workflow-status/${encodeURIComponent(dagId)}/${encodeURIComponent(runId)}/input`;
      const response = await fetch(path, { signal });
      if (!response.ok) throw problemOf(response, await response.json().catch(() => null));
      return userInput(parse(await response.text()) as Record<string, unknown>);
    },
    staleTime: Infinity,
  });
