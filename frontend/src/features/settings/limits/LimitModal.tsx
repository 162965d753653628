import { Button, Group, Modal, NumberInput, Select, Stack, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { answer, api } from "@/shared/api/client";
import type { LimitBody, LimitOut } from "@/shared/api/schema";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { idOf, KINDS, type Kind, SUBJECTS, type SubjectType } from "./limits";

/** Adds a limit, or changes a known one. */
export function LimitModal({ known, onClose }: { known: LimitOut | null; onClose: () => void }) {
  const client = useQueryClient();
  const [type, setType] = useState<SubjectType>(
    (known?.subject.split(":")[0] as SubjectType | undefined) ?? "each_user",
  );
  const [name, setName] = useState(known?.subject.split(":").slice(1).join(":") ?? "");
  const [kind, setKind] = useState<Kind>(known?.kind ?? "cost_usd");
  const [period, setPeriod] = useState<"day" | "month">(known?.period ?? "day");
  const [limit, setLimit] = useState<number | string>(known?.limit ?? "");
  const named = SUBJECTS.find((one) => one.value === type)?.named ?? false;
  const timed = KINDS.find((one) => one.value === kind)?.timed ?? false;
  const save = useMutation({
    mutationFn: (body: LimitBody) =>
      answer(api.PUT("/limits/{limit_id}", { params: { path: { limit_id: known?.id ?? idOf(body) } }, body })),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ["limits"] });
      onClose();
    },
  });
  return (
    <Modal
      opened
      onClose={onClose}
      title={known ? "Change a limit" : "Add a limit"}
      closeButtonProps={{ "aria-label": "Close" }}
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const subject = named ? `${type}:${name.trim()}` : type;
          save.mutate({ subject, kind, period: timed ? period : null, limit: Number(limit) });
        }}
      >
        <Stack>
          {save.error ? <ProblemAlert error={save.error} /> : null}
          <Select
            label="For"
            data={SUBJECTS.map(({ value, label }) => ({ value, label }))}
            allowDeselect={false}
            value={type}
            onChange={(value) => value && setType(value)}
          />
          {named ? (
            <TextInput
              label="Name in Airflow"
              required
              maxLength={240}
              autoCapitalize="none"
              spellCheck={false}
              value={name}
              onChange={(event) => setName(event.currentTarget.value)}
            />
          ) : null}
          <Select
            label="Of"
            data={KINDS.map(({ value, label }) => ({ value, label }))}
            allowDeselect={false}
            value={kind}
            onChange={(value) => value && setKind(value)}
          />
          {timed ? (
            <Select
              label="In each"
              description="Of UTC"
              data={["day", "month"]}
              allowDeselect={false}
              value={period}
              onChange={(value) => value && setPeriod(value)}
            />
          ) : null}
          <NumberInput
            label="Limit"
            required
            min={0}
            allowDecimal={kind === "cost_usd"}
            value={limit}
            onChange={setLimit}
          />
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              Cancel
            </Button>
            <Button type="submit" loading={save.isPending} disabled={limit === "" || (named && !name.trim())}>
              Save
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
