import type { FieldProps } from "@rjsf/utils";
import { JsonText } from "./JsonText";
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
  return (
    <JsonText
      label={schema.title ?? name}
      description={schema.description}
      required={required}
      disabled={disabled}
      initial={unsealed(formData)}
      onChange={(value, broken) => {
        if (!broken) onChange(value === undefined ? undefined : sealed(value), fieldPathId.path);
      }}
      errors={rawErrors}
      placeholder={schema.type === "array" ? "[]" : "{}"}
    />
  );
}
