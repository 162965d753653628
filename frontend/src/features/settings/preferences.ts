import type { FieldFault } from "@/shared/api/problem";
import type { PreferencesBody, PreferencesOut, TargetBody } from "@/shared/api/schema";

/** The preferences to send back: all of them, each target keeping its secret. */
export function bodyOf(known: PreferencesOut): PreferencesBody {
  return {
    default_model: known.default_model ?? null,
    budget: known.budget ?? null,
    dashboard_range: known.dashboard_range,
    notification_targets: known.notification_targets.map(({ name, url, enabled, events, thresholds }) => ({
      name,
      url,
      enabled,
      events,
      thresholds,
    })),
  };
}

/** The preferences with one target replaced or added. */
export function withTarget(known: PreferencesOut, target: TargetBody, index: number | null): PreferencesBody {
  const body = bodyOf(known);
  const targets = body.notification_targets;
  return { ...body, notification_targets: index === null ? [...targets, target] : targets.with(index, target) };
}

export function withoutTarget(known: PreferencesOut, index: number): PreferencesBody {
  const body = bodyOf(known);
  return { ...body, notification_targets: body.notification_targets.toSpliced(index, 1) };
}

/** A target's current index, in case the list was changed elsewhere. */
export function placeIn(now: PreferencesOut, name: string, index: number): number {
  const found = now.notification_targets.findIndex((one) => one.name === name);
  return found === -1 ? index : found;
}

/** The API's errors about one target, by field path: `url`, `thresholds/budget_share`. */
export function faultsOfTarget(faults: readonly FieldFault[], index: number): Record<string, string> {
  const beginning = `/notification_targets/${index}/`;
  return Object.fromEntries(
    faults
      .filter(({ pointer }) => pointer.startsWith(beginning))
      .map(({ pointer, detail }) => {
        const field = pointer.slice(beginning.length);
        // For a list, the whole field is marked.
        return [field.startsWith("events") ? "events" : field, detail];
      }),
  );
}

export type EventName = PreferencesBody["notification_targets"][number]["events"][number];

/** The events that a webhook can receive. */
export const EVENTS: { value: EventName; label: string; description: string }[] = [
  { value: "run_failed", label: "A run failed", description: "Once per attempt" },
  {
    value: "budget_threshold",
    label: "A budget is nearly used up",
    description: "A share of a run's or a task's budget is used, or a call was rejected because of the budget",
  },
  {
    value: "rate_limit_threshold",
    label: "Many rate limits",
    description: "Your runs hit this many within a period; at most once per period",
  },
  {
    value: "question",
    label: "A question for you",
    description: "An agent asks you, or its question is handed to you",
  },
  { value: "alert", label: "A workflow's own alert", description: "A DAG's VisualAINotifier was called" },
];

export function eventLabel(event: string): string {
  return EVENTS.find((one) => one.value === event)?.label ?? event.replaceAll("_", " ");
}
