import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { answer, api } from "@/shared/api/client";

/** A task instance of a run. */
export interface Place {
  dagId: string;
  runId: string;
  taskId: string;
  mapIndex: number;
}

const path = (place: Place) => ({ dag_id: place.dagId, dag_run_id: place.runId, task_id: place.taskId });

/** The states of a task's agents, newest first. */
export const checkpointsQuery = (place: Place) =>
  infiniteQueryOptions({
    queryKey: ["checkpoints", place],
    queryFn: ({ pageParam }) =>
      answer(
        api.GET("/workflows/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/checkpoints", {
          params: {
            path: path(place),
            query: { map_index: place.mapIndex, limit: 50, ...(pageParam ? { cursor: pageParam } : {}) },
          },
        }),
      ),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
  });

/** One of them, with its values. It never changes. */
export const stateQuery = (place: Place, checkpointId: string) =>
  queryOptions({
    queryKey: ["checkpoint", place, checkpointId],
    queryFn: () =>
      answer(
        api.GET("/workflows/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/checkpoints/{checkpoint_id}", {
          params: { path: { ...path(place), checkpoint_id: checkpointId }, query: { map_index: place.mapIndex } },
        }),
      ),
    staleTime: Infinity,
  });
