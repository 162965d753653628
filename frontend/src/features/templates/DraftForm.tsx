import { Alert, Button, Checkbox, Group, Modal, Paper, Stack, Text, TextInput } from "@mantine/core";
import { IconAlertTriangle, IconDeviceFloppy } from "@tabler/icons-react";
import { useBlocker } from "@tanstack/react-router";
import { type ReactNode, useMemo, useRef, useState } from "react";
import { asProblem } from "@/shared/api/problem";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import classes from "./DraftForm.module.css";
import { inDefinition, isInDefinition, readDraft } from "./draft";
import { FaultList } from "./FaultList";
import { type EditorHandle, JsonEditor } from "./JsonEditor";
import type { Fault, Schema } from "./json-schema";
import { KeyHelp } from "./KeyHelp";

export interface Submission {
  name: string;
  definition: Record<string, unknown>;
  activate: boolean;
}

interface Props {
  /** The initial text. */
  initial: string;
  /** Whether this creates a template, which needs a name and becomes active immediately. */
  isNew: boolean;
  schema: Schema;
  submitLabel: string;
  /** Resolves once it has been saved and the page may be left. */
  onSubmit: (submission: Submission) => Promise<void>;
  /** Shown if someone else has created a version in the meantime. */
  conflict?: ReactNode;
}

/** Edits a definition: JSON with help from its schema, and with errors shown in place. */
export function DraftForm({ initial, isNew, schema, submitLabel, onSubmit, conflict }: Props) {
  const [text, setText] = useState(initial);
  const [cursor, setCursor] = useState(0);
  const [name, setName] = useState("");
  const [activate, setActivate] = useState(true);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  // The server's errors, and the text they are about; the next text has none.
  const [refused, setRefused] = useState<{ text: string; faults: Fault[] } | null>(null);
  const editor = useRef<EditorHandle>(null);
  const done = useRef(false);

  const draft = useMemo(() => readDraft(text, schema), [text, schema]);
  const faults = useMemo(
    () => [...draft.faults, ...(refused?.text === text ? refused.faults : [])],
    [draft, refused, text],
  );
  const problem = error === null ? null : asProblem(error);
  const nameFault = problem?.faults.find((fault) => fault.pointer === "/name")?.detail;
  const shownElsewhere = (pointer: string) => isInDefinition(pointer) || pointer === "/name";
  const above =
    problem !== null && (problem.faults.length === 0 || !problem.faults.every((one) => shownElsewhere(one.pointer)));
  const changed = text !== initial || name !== "";

  const blocker = useBlocker({
    shouldBlockFn: () => changed && !done.current,
    enableBeforeUnload: () => changed && !done.current,
    withResolver: true,
  });

  const submit = async () => {
    if (draft.definition === null || busy) {
      if (faults[0]) editor.current?.goTo(faults[0]);
      return;
    }
    setBusy(true);
    setError(null);
    try {
      done.current = true;
      await onSubmit({ name: name.trim(), definition: draft.definition, activate });
    } catch (thrown) {
      done.current = false;
      setError(thrown);
      const found = inDefinition(asProblem(thrown).faults);
      setRefused({ text, faults: found });
      if (found[0]) editor.current?.goTo(found[0]);
    } finally {
      setBusy(false);
    }
  };

  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <Stack gap="md">
        {above ? (
          problem.status === 409 && conflict ? (
            <Alert
              color="yellow"
              icon={<IconAlertTriangle aria-hidden />}
              title="Someone else changed this first"
              role="alert"
            >
              {conflict}
            </Alert>
          ) : (
            <ProblemAlert error={problem} without={shownElsewhere} />
          )
        ) : null}
        {isNew ? (
          <TextInput
            label="Name"
            description="The name that requests use; it can't be changed. Lowercase letters, digits, - and _"
            placeholder="invoice-check"
            required
            maxLength={63}
            pattern="[a-z][a-z0-9_\-]*"
            title="Lowercase letters, digits, - and _, starting with a letter"
            value={name}
            error={nameFault}
            onChange={(event) => setName(event.currentTarget.value)}
            maw={420}
          />
        ) : null}
        <div className={classes.columns}>
          <Stack gap="sm" miw={0}>
            <JsonEditor
              ref={editor}
              initial={initial}
              onChange={setText}
              onCursor={setCursor}
              schema={schema}
              faults={faults}
              label="Definition"
            />
            <FaultList text={text} faults={faults} onGoTo={(fault) => editor.current?.goTo(fault)} />
          </Stack>
          <Paper p="md" component="aside" aria-label="Help" tabIndex={0} className={classes.help}>
            <KeyHelp text={text} cursor={cursor} schema={schema} />
          </Paper>
        </div>
        <Group>
          <Button type="submit" loading={busy} leftSection={<IconDeviceFloppy size={16} aria-hidden />}>
            {submitLabel}
          </Button>
          {isNew ? null : (
            <Checkbox
              label="Use it for new runs immediately"
              checked={activate}
              onChange={(event) => setActivate(event.currentTarget.checked)}
            />
          )}
          <Text size="sm" c="dimmed" ml="auto">
            The server validates it as the operators do when a DAG is parsed.
          </Text>
        </Group>
      </Stack>
      <Modal
        opened={blocker.status === "blocked"}
        onClose={() => blocker.reset?.()}
        title="Leave without saving?"
        closeButtonProps={{ "aria-label": "Close" }}
      >
        <Stack gap="md">
          <Text>Your changes will be lost.</Text>
          <Group justify="flex-end">
            <Button variant="default" onClick={() => blocker.reset?.()} data-autofocus>
              Stay
            </Button>
            <Button color="red" onClick={() => blocker.proceed?.()}>
              Leave
            </Button>
          </Group>
        </Stack>
      </Modal>
    </form>
  );
}
