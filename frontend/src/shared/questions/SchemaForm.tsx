import { Button, Stack } from "@mantine/core";
import { IconSend } from "@tabler/icons-react";
import { useMemo, useState } from "react";
import { InputForm } from "../form/InputForm";
import { JsonText } from "../form/JsonText";
import { atTheirFields } from "../form/server-faults";
import { JsonView } from "../ui/JsonView";
import { answerForm } from "./answer-schema";
import type { AnswerFormProps } from "./AnswerPanel";
import { isJson, type Json } from "./asks";
import classes from "./question.module.css";

interface Props extends AnswerFormProps {
  schema: Json;
}

/** The form for an answer with a schema; as JSON, if no form can be generated for it. */
export function SchemaForm({ schema, disabled, pending, problem, kept, onTouched, onSubmit }: Props) {
  const form = useMemo(() => answerForm(schema), [schema]);
  const [value, setValue] = useState<Json>(() => (form !== null && isJson(kept) ? kept : {}));
  const [json, setJson] = useState({ value: form === null ? kept : undefined, broken: false });
  const faults = useMemo(() => problem?.faults ?? [], [problem]);
  const atFields = useMemo(() => atTheirFields(faults, form?.wrapped ? "" : "/answer"), [faults, form]);
  const submit = (label: string) => (
    <Button
      type="submit"
      mt="md"
      loading={pending}
      disabled={disabled || (form === null && (json.value === undefined || json.broken))}
      leftSection={<IconSend size={16} aria-hidden />}
    >
      {label}
    </Button>
  );
  if (form) {
    return (
      <div className={classes.answer}>
        <InputForm
          inputSchema={form.input}
          value={value}
          onChange={(next) => {
            setValue(next);
            onTouched(next);
          }}
          onSubmit={(next) => onSubmit({ answer: form.wrapped ? next.answer : next })}
          faults={atFields}
          disabled={disabled}
        >
          {submit("Answer")}
        </InputForm>
      </div>
    );
  }
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (json.value !== undefined && !json.broken && !disabled) onSubmit({ answer: json.value });
      }}
    >
      <Stack gap="sm" className={classes.answer}>
        <JsonView value={schema} label="the answer's schema" />
        <JsonText
          label="Answer"
          description="JSON that fits the schema above"
          disabled={disabled}
          initial={json.value}
          errors={faults.map((fault) => `${fault.pointer}: ${fault.detail}`)}
          onChange={(next, broken) => {
            setJson({ value: next, broken });
            onTouched(next ?? json.value);
          }}
        />
        <div>{submit("Answer")}</div>
      </Stack>
    </form>
  );
}
