import { JsonInput } from "@mantine/core";
import type { ReactNode } from "react";
import { useState } from "react";
import { parse, stringify } from "@/shared/api/exact-json";

interface Props {
  label: ReactNode;
  description?: ReactNode;
  required?: boolean | undefined;
  disabled?: boolean | undefined;
  /** The value to begin with; undefined is an empty field. */
  initial: unknown;
  /** Called with the value, undefined for an empty field, or with `broken` while the text isn't JSON. */
  onChange: (value: unknown, broken: boolean) => void;
  errors?: readonly string[] | undefined;
  placeholder?: string;
}

/** A value that is edited as JSON; its numbers stay what they were typed as. */
export function JsonText({ initial, onChange, errors = [], ...field }: Props) {
  const [text, setText] = useState(() => (initial === undefined ? "" : stringify(initial, 2)));
  const [broken, setBroken] = useState(false);
  const shown = broken ? ["This isn't valid JSON yet."] : errors;
  const take = (next: string) => {
    setText(next);
    let value: unknown;
    try {
      value = next.trim() === "" ? undefined : parse(next);
    } catch {
      setBroken(true);
      onChange(undefined, true);
      return;
    }
    setBroken(false);
    onChange(value, false);
  };
  return (
    <JsonInput
      {...field}
      value={text}
      onChange={take}
      error={shown.length > 0 ? shown.join(" ") : null}
      formatOnBlur
      serialize={(value: unknown) => stringify(value, 2)}
      deserialize={parse}
      autosize
      minRows={2}
      maxRows={16}
      styles={{ input: { fontFamily: "var(--mantine-font-family-monospace)" } }}
    />
  );
}
