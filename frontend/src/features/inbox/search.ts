/** What of the inbox is shown, in the URL. */
export interface InboxSearch {
  /** All open questions, if absent. */
  show?: "mine" | "answered" | "closed";
  dag?: string;
  run?: string;
  age?: Age;
}

/** Seconds by the name of an age. */
export const AGES = { "1h": 3_600, "24h": 86_400, "7d": 7 * 86_400 } as const;
export type Age = keyof typeof AGES;

export function inboxSearch(search: Record<string, unknown>): InboxSearch {
  const { show, dag, run, age } = search;
  return {
    ...(show === "mine" || show === "answered" || show === "closed" ? { show } : {}),
    ...(typeof dag === "string" && dag ? { dag } : {}),
    ...(typeof run === "string" && run ? { run } : {}),
    ...(typeof age === "string" && Object.hasOwn(AGES, age) ? { age: age as Age } : {}),
  };
}

/** The questions that a URL asks for. */
export function filtersOf({ show, dag, run, age }: InboxSearch) {
  return {
    state: show === "answered" || show === "closed" ? show : ("open" as const),
    mine: show === "mine",
    dag,
    run,
    olderThan: age === undefined ? undefined : AGES[age],
  };
}
