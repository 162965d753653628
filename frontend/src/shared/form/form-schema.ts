import type { RJSFSchema, UiSchema } from "@rjsf/utils";
import { rounded } from "@/shared/api/exact-json";
import { sealed } from "./sealed";

/** A DAG's input as shown in a form. */
export interface FormSchema {
  schema: RJSFSchema;
  uiSchema: UiSchema;
}

type Json = Record<string, unknown>;

/** Texts that may be at least this long get a text area. */
const LONG_TEXT = 1_000;

/**
 * Returns the form for the JSON Schema of a DAG's parameters.
 *
 * A nullable parameter becomes an optional field that is left out if empty, which means the same to Airflow. Pictures get
 * a drop zone, long texts a text area, and values that no form can be generated for are edited as JSON.
 */
export function formOf(inputSchema: Json): FormSchema {
  const uiSchema: UiSchema = { "ui:submitButtonOptions": { norender: true } };
  const properties: Json = {};
  const given = isJson(inputSchema.properties) ? inputSchema.properties : {};
  const required = Array.isArray(inputSchema.required) ? inputSchema.required : [];
  for (const [name, raw] of Object.entries(given)) {
    const property = ofForm(withoutNull(isJson(raw) ? raw : {}));
    properties[name] = property;
    const look = lookFor(name, property, required.includes(name));
    if (look) uiSchema[name] = look;
  }
  return { schema: { ...(rounded(inputSchema) as Json), properties, required } as RJSFSchema, uiSchema };
}

/** The schema with its default as a form's value, and with plain numbers, which is what the form compares with. */
function ofForm(property: Json): Json {
  const { default: fallback, ...rest } = property;
  return { ...(rounded(rest) as Json), ...(fallback === undefined ? {} : { default: sealed(fallback) }) };
}

function lookFor(name: string, property: Json, required: boolean): UiSchema | null {
  // A tick that nobody has set is no answer yet, rather than a no.
  if (property.type === "boolean" && required && property.default === undefined) return { "ui:widget": "radio" };
  if (property.type === "string" && property.enum === undefined) {
    if (/(^|_)image(_url)?$/.test(name)) return { "ui:widget": "picture" };
    const longest = typeof property.maxLength === "number" ? property.maxLength : Infinity;
    const plain = property.format === undefined && property.pattern === undefined;
    if (plain && longest >= LONG_TEXT) return { "ui:widget": "textarea" };
    return null;
  }
  return isFree(property) ? { "ui:field": "json" } : null;
}

/** Whether a value may have members that the schema doesn't name. */
function isFree(property: Json): boolean {
  const choices = choicesOf(property);
  if (choices !== null && !isJson(property.properties)) {
    return !choices.every((one) => isJson(one) && !isFree(withoutNull(one)));
  }
  if (property.type === undefined) return property.enum === undefined && property.const === undefined;
  if (Array.isArray(property.type)) return true;
  if (property.type === "object") return !isJson(property.properties);
  if (property.type === "array") return !isJson(property.items) || isFree(withoutNull(property.items));
  return false;
}

function withoutNull(property: Json): Json {
  if (!Array.isArray(property.type) || !property.type.includes("null")) return property;
  const types = property.type.filter((type) => type !== "null");
  const { default: fallback, ...rest } = property;
  return {
    ...rest,
    type: types.length === 1 ? types[0] : types,
    ...(fallback == null ? {} : { default: fallback }),
    ...(Array.isArray(property.enum) ? { enum: property.enum.filter((one) => one !== null) } : {}),
  };
}

/** The schemas one of which holds for the value; null if the schema offers no choice. */
export function choicesOf({ oneOf, anyOf }: Json): unknown[] | null {
  return Array.isArray(oneOf) ? (oneOf as unknown[]) : Array.isArray(anyOf) ? (anyOf as unknown[]) : null;
}

function isJson(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
