export const TABS = ["agents", "timeline", "states", "errors", "picture", "result", "input"] as const;
export type Tab = (typeof TABS)[number];

/** The state of a run's page in the URL. */
export interface RunPageSearch {
  tab?: Tab;
  /** The task whose log and tries are open: `name`, or `name[3]` for a mapped task. */
  task?: string;
}

export function runPageSearch(search: Record<string, unknown>): RunPageSearch {
  const tab = TABS.find((known) => known === search.tab);
  return {
    ...(tab ? { tab } : {}),
    ...(typeof search.task === "string" && search.task ? { task: search.task } : {}),
  };
}
