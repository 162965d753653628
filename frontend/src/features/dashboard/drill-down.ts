import { secondsOf } from "@/shared/format/time-range";
import type { RunState } from "@/shared/ui/states";

/** The time ranges that the run list offers, in seconds. */
const SINCE = { "1h": 3_600, "24h": 86_400, "7d": 7 * 86_400, "30d": 30 * 86_400 } as const;
type Since = keyof typeof SINCE;

/** Filters of the run list. */
export interface RunsFilters {
  dag?: string;
  user?: string;
  state?: RunState[];
  since?: Since;
}

interface Figure {
  range: string;
  dag?: string | undefined;
  user?: string | undefined;
  state?: RunState[] | undefined;
}

/** The run-list filters that show all runs behind a figure; the time is the shortest one that covers the range. */
export function runsOf({ range, dag, user, state }: Figure): RunsFilters {
  const seconds = secondsOf(range) ?? Infinity;
  const since = (Object.keys(SINCE) as Since[]).find((name) => SINCE[name] >= seconds);
  return {
    ...(dag ? { dag } : {}),
    ...(user ? { user } : {}),
    ...(state ? { state } : {}),
    ...(since ? { since } : {}),
  };
}
