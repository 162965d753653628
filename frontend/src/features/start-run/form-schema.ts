import type { RJSFSchema, UiSchema } from "@rjsf/utils";

/** A DAG's input as a form shows it. */
export interface FormSchema {
  schema: RJSFSchema;
  uiSchema: UiSchema;
}

type Json = Record<string, unknown>;

/** What a text of this length or more is written in. */
const LONG_TEXT = 1_000;

/**
 * The form for the JSON Schema of a DAG's parameters.
 *
 * What may be null is an optional field that is left out when empty, which means the same to Airflow. Pictures get a place
 * to drop them, long texts room, and what no form can be made for is written as JSON.
 */
export function formOf(inputSchema: Json): FormSchema {
  const uiSchema: UiSchema = { "ui:submitButtonOptions": { norender: true } };
  const properties: Json = {};
  const given = isJson(inputSchema.properties) ? inputSchema.properties : {};
  for (const [name, raw] of Object.entries(given)) {
    const property = withoutNull(isJson(raw) ? raw : {});
    properties[name] = property;
    const look = lookFor(name, property);
    if (look) uiSchema[name] = look;
  }
  const required = Array.isArray(inputSchema.required) ? inputSchema.required : [];
  return { schema: { ...inputSchema, properties, required } as RJSFSchema, uiSchema };
}

function lookFor(name: string, property: Json): UiSchema | null {
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

function isJson(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
