import { Checkbox, Stack, Textarea, TextInput } from "@mantine/core";
import { useState } from "react";
import { isLosslessNumber, toNumber } from "../api/exact-json";
import { JsonText } from "../form/JsonText";
import type { Json } from "./asks";

interface Props {
  /** The arguments to begin with. */
  initial: Json;
  /** Called with all arguments, or null while one of them is no value. */
  onChange: (args: Json | null) => void;
  disabled: boolean;
}

/** A tool call's arguments, each in a field of its kind. */
export function ArgumentsEditor({ initial, onChange, disabled }: Props) {
  const [args, setArgs] = useState(initial);
  const [broken, setBroken] = useState<ReadonlySet<string>>(new Set());
  const change = (name: string, value: unknown, wrong: boolean) => {
    const next = wrong ? args : { ...args, [name]: value };
    const faults = new Set([...broken].filter((one) => one !== name).concat(wrong ? [name] : []));
    setArgs(next);
    setBroken(faults);
    onChange(faults.size > 0 ? null : next);
  };
  return (
    <Stack gap="sm">
      {Object.entries(initial).map(([name, value]) => (
        <Argument
          key={name}
          name={name}
          initial={value}
          disabled={disabled}
          onChange={(next, wrong) => change(name, next, wrong)}
        />
      ))}
    </Stack>
  );
}

interface ArgumentProps {
  name: string;
  initial: unknown;
  disabled: boolean;
  onChange: (value: unknown, broken: boolean) => void;
}

function Argument({ name, initial, disabled, onChange }: ArgumentProps) {
  const label = <span className="mono">{name}</span>;
  if (typeof initial === "string") {
    return (
      <Textarea
        label={label}
        disabled={disabled}
        defaultValue={initial}
        autosize
        minRows={1}
        maxRows={16}
        onChange={(event) => onChange(event.currentTarget.value, false)}
      />
    );
  }
  if (typeof initial === "boolean") {
    return (
      <Checkbox
        label={label}
        disabled={disabled}
        defaultChecked={initial}
        onChange={(event) => onChange(event.currentTarget.checked, false)}
      />
    );
  }
  if (typeof initial === "number" || isLosslessNumber(initial)) {
    return (
      <NumberArgument
        label={label}
        initial={isLosslessNumber(initial) ? initial.value : String(initial)}
        disabled={disabled}
        onChange={onChange}
      />
    );
  }
  return (
    <JsonText
      label={label}
      disabled={disabled}
      initial={initial}
      onChange={(value, broken) => onChange(value ?? null, broken)}
    />
  );
}

function NumberArgument({
  label,
  initial,
  disabled,
  onChange,
}: Omit<ArgumentProps, "name" | "initial"> & { label: React.ReactNode; initial: string }) {
  const [text, setText] = useState(initial);
  const number = toNumber(text.trim());
  return (
    <TextInput
      label={label}
      disabled={disabled}
      inputMode="decimal"
      value={text}
      error={number === undefined ? "This isn't a number." : null}
      onChange={(event) => {
        const typed = toNumber(event.currentTarget.value.trim());
        setText(event.currentTarget.value);
        onChange(typed, typed === undefined);
      }}
    />
  );
}
