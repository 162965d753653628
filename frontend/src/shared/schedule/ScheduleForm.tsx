import { Button, Checkbox, Group, Select, Stack, Textarea, TextInput } from "@mantine/core";
import { lazy, Suspense, useMemo, useState } from "react";
import { asProblem } from "@/shared/api/problem";
import type { ScheduleOut } from "@/shared/api/schema";
import { JsonText } from "@/shared/form/JsonText";
import { atTheirFields } from "@/shared/form/server-faults";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { type Draft, draftOf, KINDS, requestOf, type Target, useScheduleChanges } from "./schedule";

const InputForm = lazy(() => import("@/shared/form/InputForm").then((module) => ({ default: module.InputForm })));

type Input = Record<string, unknown>;

interface Props {
  target: Target;
  schedule: ScheduleOut | null;
  inputSchema: Input | undefined;
  onDone: () => void;
}

/** Sets or changes a schedule. */
export function ScheduleForm({ target, schedule, inputSchema, onDone }: Props) {
  const [draft, setDraft] = useState(() => draftOf(schedule));
  const [input, setInput] = useState<Input>(() => schedule?.input_data ?? {});
  const [broken, setBroken] = useState(false);
  const { set } = useScheduleChanges(target);
  const problem = set.error ? asProblem(set.error) : null;
  const faults = useMemo(() => atTheirFields(problem?.faults ?? [], INPUT), [problem]);
  const own = (...places: string[]) =>
    problem?.faults.find((one) => places.some((place) => one.pointer === place || one.pointer.startsWith(`${place}/`)))
      ?.detail;
  const known = (pointer: string) =>
    (inputSchema !== undefined && pointer.startsWith(`${INPUT}/`)) ||
    FIELDS.some((place) => pointer === place || pointer.startsWith(`${place}/`));
  const above = problem !== null && (problem.faults.length === 0 || !problem.faults.every((one) => known(one.pointer)));
  const change = (part: Partial<Draft>) => setDraft({ ...draft, ...part });
  const save = (given: Input) => set.mutate(requestOf(draft, given, schedule), { onSuccess: onDone });

  const timing = (
    <Stack gap="sm" mt={inputSchema ? "md" : 0}>
      <Select
        label="Runs are due by"
        data={KINDS}
        value={draft.kind}
        allowDeselect={false}
        onChange={(kind) => kind && change({ kind: kind })}
      />
      {draft.kind === "crons" || draft.kind === "asset_or_time" ? (
        <Textarea
          label="Cron expressions"
          description="One per line: minute, hour, day of the month, month, day of the week; or a preset such as @daily"
          autosize
          value={draft.crons}
          error={own("/timetable/crons", "/cron")}
          onChange={(event) => change({ crons: event.currentTarget.value })}
        />
      ) : null}
      {draft.kind === "delta" ? (
        <TextInput
          label="Minutes between runs"
          inputMode="decimal"
          value={draft.minutes}
          error={own("/timetable/seconds")}
          onChange={(event) => change({ minutes: event.currentTarget.value })}
        />
      ) : null}
      {draft.kind === "events" ? (
        <Textarea
          label="Dates"
          description="One per line, with a time zone, such as 2027-01-31T06:00:00Z"
          autosize
          value={draft.dates}
          error={own("/timetable/dates")}
          onChange={(event) => change({ dates: event.currentTarget.value })}
        />
      ) : null}
      {draft.kind === "assets" || draft.kind === "asset_or_time" ? (
        <>
          <Textarea
            label="Assets"
            description="Names or URIs, one per line"
            autosize
            value={draft.assets}
            error={own("/timetable/assets", "/assets")}
            onChange={(event) => change({ assets: event.currentTarget.value })}
          />
          <Checkbox
            label="Any of them suffices"
            checked={draft.anyAsset}
            onChange={(event) => change({ anyAsset: event.currentTarget.checked })}
          />
        </>
      ) : null}
      {draft.kind === "crons" || draft.kind === "asset_or_time" ? (
        <TextInput
          label="Time zone"
          value={draft.timezone}
          error={own("/timezone")}
          onChange={(event) => change({ timezone: event.currentTarget.value })}
        />
      ) : null}
      <Group grow align="flex-start">
        <TextInput
          label="Not before"
          placeholder="now"
          value={draft.start}
          error={own("/start_date")}
          onChange={(event) => change({ start: event.currentTarget.value })}
        />
        <TextInput
          label="Not after"
          placeholder="no end"
          value={draft.end}
          error={own("/end_date")}
          onChange={(event) => change({ end: event.currentTarget.value })}
        />
      </Group>
      <Checkbox
        label="Make up for runs that were due since then"
        checked={draft.catchup}
        error={own("/catchup")}
        onChange={(event) => change({ catchup: event.currentTarget.checked })}
      />
      <TextInput
        label="Model"
        description="For agents whose task names no model. If empty, your default applies"
        value={draft.model}
        error={own("/model")}
        onChange={(event) => change({ model: event.currentTarget.value })}
      />
      {above ? <ProblemAlert error={problem} without={known} /> : null}
      <Group justify="flex-end">
        <Button variant="default" onClick={onDone}>
          Cancel
        </Button>
        <Button type="submit" loading={set.isPending} disabled={broken}>
          Save
        </Button>
      </Group>
    </Stack>
  );

  if (inputSchema) {
    return (
      <Suspense fallback={null}>
        <InputForm
          inputSchema={inputSchema}
          value={input}
          onChange={setInput}
          onSubmit={save}
          faults={faults}
          disabled={set.isPending}
          idPrefix="scheduled-input"
        >
          {timing}
        </InputForm>
      </Suspense>
    );
  }
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        save(input);
      }}
    >
      <JsonText
        label="Input"
        description="In addition to the template’s, as a JSON object"
        initial={schedule?.input_data ?? undefined}
        errors={(problem?.faults ?? []).filter((one) => one.pointer.startsWith(INPUT)).map((one) => one.detail)}
        onChange={(value, isBroken) => {
          setBroken(isBroken || (value !== undefined && (typeof value !== "object" || value === null)));
          setInput((value ?? {}) as Input);
        }}
      />
      {timing}
    </form>
  );
}

const INPUT = "/input_data";
const FIELDS = [
  "/timetable/crons",
  "/timetable/seconds",
  "/timetable/dates",
  "/timetable/assets",
  "/timezone",
  "/start_date",
  "/end_date",
  "/catchup",
  "/model",
];
