import { type OutputUnit, type Schema, Validator } from "@cfworker/json-schema";
import {
  createErrorHandler,
  type CustomValidator,
  type ErrorTransformer,
  type RJSFSchema,
  type RJSFValidationError,
  toErrorSchema,
  type UiSchema,
  unwrapErrorHandler,
  validationDataMerge,
  type ValidatorType,
} from "@rjsf/utils";
import { rounded } from "@/shared/api/exact-json";
import { unsealed } from "./sealed";

/**
 * Validates a form's values with an interpreter of JSON Schema.
 *
 * The usual validator compiles schemas to code, which the page's content security policy forbids. The backend validates
 * again; this one reports errors earlier.
 */
export const validator: ValidatorType = {
  validateFormData(
    formData: unknown,
    schema: RJSFSchema,
    customValidate?: CustomValidator,
    transformErrors?: ErrorTransformer,
    uiSchema?: UiSchema,
  ) {
    const found = faults(schema, formData);
    const errors = transformErrors ? transformErrors(found, uiSchema) : found;
    const result = { errors, errorSchema: toErrorSchema(errors) };
    if (!customValidate) return result;
    const handled = customValidate(formData, createErrorHandler(formData), uiSchema, result.errorSchema);
    return validationDataMerge(result, unwrapErrorHandler(handled));
  },
  isValid(schema: RJSFSchema, formData: unknown, rootSchema: RJSFSchema) {
    const { $defs, definitions } = rootSchema;
    return check({ ...($defs ? { $defs } : {}), ...(definitions ? { definitions } : {}), ...schema }, formData).valid;
  },
  // eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- required by the interface
  rawValidation<Result>(schema: RJSFSchema, formData?: unknown) {
    return { errors: check(schema, formData).errors as Result[] };
  },
};

/** Keywords whose errors only repeat those of something inside them. */
const WRAPPERS = new Set(["properties", "items", "prefixItems", "allOf", "$ref", "additionalProperties"]);

function check(schema: RJSFSchema, value: unknown) {
  return new Validator(schema as Schema, "2020-12", false).validate(rounded(unsealed(value ?? {})));
}

function faults(schema: RJSFSchema, value: unknown): RJSFValidationError[] {
  return check(schema, value)
    .errors.filter((error) => !WRAPPERS.has(error.keyword))
    .map(asError);
}

function asError(error: OutputUnit): RJSFValidationError {
  const path = error.instanceLocation
    .replace(/^#\/?/, "")
    .split("/")
    .filter(Boolean)
    .map((part) => decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~"));
  const missing = error.keyword === "required" ? /"(.*)"/.exec(error.error)?.[1] : undefined;
  if (missing !== undefined) path.push(missing);
  const message = missing !== undefined ? "This is required." : error.error;
  return { name: error.keyword, message, property: path.map((part) => `.${part}`).join(""), stack: message };
}
