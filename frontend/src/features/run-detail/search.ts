export const TABS = ["agents", "timeline", "errors", "picture", "result", "input"] as const;
export type Tab = (typeof TABS)[number];

/** What of a run is looked at, as it stands in the address. */
export interface RunPageSearch {
  tab?: Tab;
  /** The task whose log and tries are open: `name`, of a mapped task `name[3]`. */
  task?: string;
}

export function runPageSearch(search: Record<string, unknown>): RunPageSearch {
  const tab = TABS.find((known) => known === search.tab);
  return {
    ...(tab ? { tab } : {}),
    ...(typeof search.task === "string" && search.task ? { task: search.task } : {}),
  };
}
