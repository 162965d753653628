/** Mapped tasks with many instances: the page counts them, and lists them on request. */
import { queryOptions, infiniteQueryOptions } from "@tanstack/react-query";
import { answer, api } from "@/shared/api/client";
import { applyEvents, EMPTY, type RunModel, type TaskRun } from "@/shared/stream/run-model";

/** A mapped task with more instances than this is drawn as a group. */
export const GROUPED = 20;

export interface Group {
  taskId: string;
  total: number;
  /** Instances by state, the most urgent state first. */
  states: [state: string, count: number][];
}

const URGENT = ["failed", "running", "deferred", "awaiting_input", "up_for_retry", "upstream_failed", "queued"];
const rank = (state: string) => (URGENT.includes(state) ? URGENT.indexOf(state) : URGENT.length);

/**
 * The run's large mapped tasks, by id.
 *
 * `counted` is the snapshot's count. It is some seconds old, but complete; the model is live, but of a large run it may
 * lack instances.
 */
export function groupsOf(model: RunModel, counted: Record<string, Record<string, number>>): Map<string, Group> {
  const live = new Map<string, Map<string, number>>();
  for (const { taskId, mapIndex, state } of model.tasks.values()) {
    if (mapIndex < 0) continue;
    const states = live.get(taskId) ?? new Map<string, number>();
    states.set(state ?? "none", (states.get(state ?? "none") ?? 0) + 1);
    live.set(taskId, states);
  }
  const groups = new Map<string, Group>();
  for (const taskId of new Set([...live.keys(), ...Object.keys(counted)])) {
    const told = Object.entries(counted[taskId] ?? {});
    const known = [...(live.get(taskId) ?? [])];
    const states = sum(known) >= sum(told) ? known : told;
    const total = sum(states);
    if (total > GROUPED) groups.set(taskId, { taskId, total, states: states.sort(([a], [b]) => rank(a) - rank(b)) });
  }
  return groups;
}

function sum(states: readonly [string, number][]): number {
  return states.reduce((all, [, count]) => all + count, 0);
}

interface Run {
  dag_id: string;
  dag_run_id: string;
}

/** The instances of a mapped task, page by page; those in one state, or failed and active ones first. */
export const instancesQuery = ({ dag_id, dag_run_id }: Run, taskId: string, state: string | null) =>
  infiniteQueryOptions({
    queryKey: ["run", dag_id, dag_run_id, "tasks", taskId, state],
    queryFn: ({ pageParam }) =>
      answer(
        api.GET("/workflow-status/{dag_id}/{dag_run_id}/tasks", {
          params: {
            path: { dag_id, dag_run_id },
            query: { task_id: taskId, limit: 100, ...(state && { state }), ...(pageParam && { cursor: pageParam }) },
          },
        }),
      ),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
  });

/** A task instance with its agents that the page has not been told of, by its key; null if the run has no such one. */
export const instanceQuery = ({ dag_id, dag_run_id }: Run, key: string) =>
  queryOptions({
    queryKey: ["run", dag_id, dag_run_id, "instance", key],
    queryFn: async (): Promise<TaskRun | null> => {
      const [, taskId = key, index = "-1"] = /^(.*)\[(\d+)\]$/.exec(key) ?? [];
      const query = { task_id: taskId, map_index: Number(index) };
      const params = { path: { dag_id, dag_run_id }, query };
      const [tasks, agents] = await Promise.all([
        answer(api.GET("/workflow-status/{dag_id}/{dag_run_id}/tasks", { params })),
        answer(api.GET("/workflow-status/{dag_id}/{dag_run_id}/agents", { params })),
      ]);
      const model = applyEvents(EMPTY, [
        ...tasks.tasks.map((data) => ({ seq: null, type: "task_update" as const, data })),
        ...agents.agents.toReversed().map((data) => ({ seq: null, type: "agent_update" as const, data })),
      ]);
      return model.tasks.get(key) ?? null;
    },
  });
