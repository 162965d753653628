import { JsonInput } from "@mantine/core";
import type { FieldProps } from "@rjsf/utils";
import { useState } from "react";
import { parse, stringify } from "@/shared/api/exact-json";
import { sealed, unsealed } from "./sealed";

/** A value that no form can be generated for: edited as JSON, and left out if empty. */
export function JsonField({
  schema,
  name,
  formData,
  onChange,
  required,
  rawErrors,
  disabled,
  fieldPathId,
}: FieldProps) {
  const [text, setText] = useState(() => (formData === undefined ? "" : stringify(unsealed(formData), 2)));
  const [broken, setBroken] = useState(false);
  const errors = broken ? ["This isn't valid JSON yet."] : (rawErrors ?? []);
  const take = (next: string) => {
    setText(next);
    try {
      onChange(next.trim() === "" ? undefined : sealed(parse(next)), fieldPathId.path);
      setBroken(false);
    } catch {
      setBroken(true);
    }
  };
  return (
    <JsonInput
      label={schema.title ?? name}
      description={schema.description}
      required={required}
      disabled={disabled}
      value={text}
      onChange={take}
      error={errors.length > 0 ? errors.join(" ") : null}
      formatOnBlur
      serialize={(value: unknown) => stringify(value, 2)}
      deserialize={parse}
      autosize
      minRows={2}
      maxRows={16}
      placeholder={schema.type === "array" ? "[]" : "{}"}
      styles={{ input: { fontFamily: "var(--mantine-font-family-monospace)" } }}
    />
  );
}
