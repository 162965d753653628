import type { FieldProps } from "@rjsf/utils";
import { shownNumber, typedNumber } from "./sealed";

/** A number, typed as text: a number input rounds what it can't represent. */
export function NumberField(props: FieldProps) {
  const { StringField } = props.registry.fields;
  if (!StringField) return null;
  const options = { ...props.uiSchema?.["ui:options"], inputType: "text", inputMode: "decimal" };
  return (
    <StringField
      {...props}
      uiSchema={{ ...props.uiSchema, "ui:options": options }}
      formData={shownNumber(props.formData) ?? ""}
      onChange={(typed: unknown, ...rest) => props.onChange(typedNumber(typed), ...rest)}
    />
  );
}
