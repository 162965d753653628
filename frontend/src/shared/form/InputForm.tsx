import Form from "@rjsf/mantine";
import type { ErrorSchema, RegistryFieldsType, RegistryWidgetsType } from "@rjsf/utils";
import { type ReactNode, useMemo } from "react";
import { formOf } from "./form-schema";
import { JsonField } from "./JsonField";
import { NumberField } from "./NumberField";
import { PictureWidget } from "./PictureWidget";
import { sealed, unsealed } from "./sealed";
import { validator } from "./validator";

export type Input = Record<string, unknown>;

interface Props {
  inputSchema: Input;
  value: Input;
  onChange: (value: Input) => void;
  onSubmit: (value: Input) => void;
  /** The server's errors, by field. */
  faults: ErrorSchema;
  disabled: boolean;
  /** What the ids of its fields begin with, where a page has a second form. */
  idPrefix?: string;
  children: ReactNode;
}

const widgets: RegistryWidgetsType = { picture: PictureWidget };
const fields: RegistryFieldsType = { json: JsonField, NumberField };

/** The form for a workflow's input. */
export function InputForm({ inputSchema, value, onChange, onSubmit, faults, disabled, idPrefix, children }: Props) {
  const { schema, uiSchema } = useMemo(() => formOf(inputSchema), [inputSchema]);
  const formValue = useMemo(() => sealed(value), [value]);
  return (
    <Form
      schema={schema}
      uiSchema={uiSchema}
      validator={validator}
      widgets={widgets}
      fields={fields}
      formData={formValue}
      extraErrors={faults}
      disabled={disabled}
      noHtml5Validate
      showErrorList={false}
      focusOnFirstError
      // Errors are shown at their fields; without this they are also written to the console.
      onError={() => undefined}
      idPrefix={idPrefix ?? "input"}
      onChange={({ formData }) => onChange(unsealed(formData ?? {}) as Input)}
      onSubmit={({ formData }) => onSubmit(unsealed(formData ?? {}) as Input)}
    >
      {children}
    </Form>
  );
}
