import { queryOptions } from "@tanstack/react-query";
import { answer, api } from "./client";

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
