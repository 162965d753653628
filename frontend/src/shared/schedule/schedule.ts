import { queryOptions, useMutation, useQueryClient } from "@tanstack/react-query";
import { answer, api } from "@/shared/api/client";
import { ApiProblem } from "@/shared/api/problem";
import type { ScheduleBody, ScheduleOut, TimetableBody } from "@/shared/api/schema";

/** What a schedule starts runs of. */
export type Target = { kind: "workflow" | "template"; name: string };

/** The schedule of a workflow or a template; null if it has none. */
export const scheduleQuery = ({ kind, name }: Target) =>
  queryOptions({
    queryKey: ["schedules", kind, name],
    queryFn: async (): Promise<ScheduleOut | null> => {
      try {
        return await (kind === "workflow"
          ? answer(api.GET("/workflows/{dag_id}/schedule", { params: { path: { dag_id: name } } }))
          : answer(api.GET("/templates/{name}/schedule", { params: { path: { name } } })));
      } catch (error) {
        if (error instanceof ApiProblem && error.status === 404) return null;
        throw error;
      }
    },
    refetchInterval: 15_000,
  });

/** Sets and deletes a schedule. */
export function useScheduleChanges(target: Target) {
  const client = useQueryClient();
  const { queryKey } = scheduleQuery(target);
  const { kind, name } = target;
  const set = useMutation({
    mutationFn: (body: ScheduleBody) =>
      kind === "workflow"
        ? answer(api.PUT("/workflows/{dag_id}/schedule", { params: { path: { dag_id: name } }, body }))
        : answer(api.PUT("/templates/{name}/schedule", { params: { path: { name } }, body })),
    onSuccess: (schedule) => client.setQueryData(queryKey, schedule),
  });
  const remove = useMutation({
    mutationFn: () =>
      kind === "workflow"
        ? answer(api.DELETE("/workflows/{dag_id}/schedule", { params: { path: { dag_id: name } } }))
        : answer(api.DELETE("/templates/{name}/schedule", { params: { path: { name } } })),
    onSuccess: () => client.setQueryData(queryKey, null),
  });
  return { set, remove };
}

/** The request that leaves a schedule as it is. */
export function bodyOf(schedule: ScheduleOut): ScheduleBody {
  const { timetable, timezone, start_date, end_date, catchup, enabled, model, budget } = schedule;
  const input_data = schedule.input_data ?? {};
  return { timetable, timezone, start_date, end_date, catchup, enabled, input_data, model, budget };
}

/** When runs are due, in words. */
export function whenDue({ timetable, timezone }: Pick<ScheduleOut, "timetable" | "timezone">): string {
  const { kind } = timetable;
  if (kind === "delta") return `every ${interval(timetable.seconds ?? 0)}`;
  if (kind === "events") return count(timetable.dates?.length ?? 0, "date");
  const crons = `${(timetable.crons ?? []).join(" and ")} (${timezone})`;
  if (kind === "crons") return crons;
  const joint = timetable.condition === "any" ? " or " : " and ";
  const assets = `after updates of ${(timetable.assets ?? []).join(joint)}`;
  return kind === "assets" ? assets : `${crons}, and ${assets}`;
}

const UNITS: [number, string][] = [
  [86_400, "day"],
  [3_600, "hour"],
  [60, "minute"],
  [1, "second"],
];

function interval(seconds: number): string {
  const [size, name] = UNITS.find(([unit]) => seconds % unit === 0) ?? [1, "second"];
  return seconds === size ? name : count(seconds / size, name);
}

function count(number: number, name: string): string {
  return `${number} ${name}${number === 1 ? "" : "s"}`;
}

export const KINDS: { value: TimetableBody["kind"]; label: string }[] = [
  { value: "crons", label: "Cron expressions" },
  { value: "delta", label: "A fixed interval" },
  { value: "events", label: "Certain dates" },
  { value: "assets", label: "Updates of assets" },
  { value: "asset_or_time", label: "Cron expressions and updates of assets" },
];

/** What the form has of a schedule: texts, as they are typed. */
export interface Draft {
  kind: TimetableBody["kind"];
  crons: string;
  minutes: string;
  dates: string;
  assets: string;
  anyAsset: boolean;
  timezone: string;
  start: string;
  end: string;
  catchup: boolean;
  model: string;
}

/** The draft of a schedule; of a new one, every morning. */
export function draftOf(schedule: ScheduleOut | null): Draft {
  const timetable: Partial<TimetableBody> = schedule?.timetable ?? {};
  return {
    kind: timetable.kind ?? "crons",
    crons: (timetable.crons ?? ["0 6 * * *"]).join("\n"),
    minutes: String((timetable.seconds ?? 3600) / 60),
    dates: (timetable.dates ?? []).join("\n"),
    assets: (timetable.assets ?? []).join("\n"),
    anyAsset: timetable.condition === "any",
    timezone: schedule?.timezone ?? Intl.DateTimeFormat().resolvedOptions().timeZone,
    start: schedule?.start_date ?? "",
    end: schedule?.end_date ?? "",
    catchup: schedule?.catchup ?? false,
    model: schedule?.model ?? "",
  };
}

/** The request for a draft. */
export function requestOf(draft: Draft, input: Record<string, unknown>, former: ScheduleOut | null): ScheduleBody {
  const model = draft.model.trim();
  return {
    timetable: timetableOf(draft),
    timezone: draft.timezone.trim() || "UTC",
    catchup: draft.catchup,
    enabled: true,
    input_data: input,
    ...(draft.start.trim() ? { start_date: draft.start.trim() } : {}),
    ...(draft.end.trim() ? { end_date: draft.end.trim() } : {}),
    ...(model ? { model } : {}),
    ...(former?.budget ? { budget: former.budget } : {}),
  };
}

function timetableOf(draft: Draft): TimetableBody {
  const { kind } = draft;
  if (kind === "delta") return { kind, seconds: Math.round(Number(draft.minutes) * 60) };
  if (kind === "events") return { kind, dates: lines(draft.dates) };
  const assets = { assets: lines(draft.assets), condition: draft.anyAsset ? ("any" as const) : ("all" as const) };
  if (kind === "assets") return { kind, ...assets };
  const crons = { crons: lines(draft.crons) };
  return kind === "crons" ? { kind, ...crons } : { kind, ...crons, ...assets };
}

function lines(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
}
