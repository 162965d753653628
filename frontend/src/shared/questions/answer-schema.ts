/** The form for an answer's JSON Schema. */
import { choicesOf } from "../form/form-schema";
import { stringify } from "../api/exact-json";
import { isJson, type Json } from "./asks";

/** `input` is the schema of a form, which has named fields; `wrapped` if the answer itself is its only one. */
export interface AnswerForm {
  input: Json;
  wrapped: boolean;
}

const PLAIN = ["string", "number", "integer", "boolean"];

/** The form for a schema; null if no form can be generated for it, so that its answer is edited as JSON. */
export function answerForm(schema: Json): AnswerForm | null {
  const whole = withoutReferences(schema, schema, 0);
  if (!isJson(whole)) return null;
  if (isJson(whole.properties) && Object.keys(whole.properties).length > 0 && !isChoice(whole)) {
    return {
      input: { ...whole, type: "object", properties: inOrder(whole.properties, whole.required) },
      wrapped: false,
    };
  }
  const single = Array.isArray(whole.enum) || PLAIN.some((type) => whole.type === type);
  const answer = single && !isChoice(whole) ? whole : oneOfSeveral(whole);
  if (answer === null) return null;
  return {
    input: { type: "object", properties: { answer: { title: "Answer", ...answer } }, required: ["answer"] },
    wrapped: true,
  };
}

/** The schema of an answer that has one of several forms, each with a name to choose it by; null if it isn't one. */
function oneOfSeveral(schema: Json): Json | null {
  const choices = choicesOf(schema)?.filter(isJson) ?? [];
  const takesForm = (one: Json) =>
    !isChoice(one) &&
    (isJson(one.properties) || "enum" in one || "const" in one || PLAIN.some((type) => one.type === type));
  const others = without(schema, "oneOf", "anyOf");
  if (choices.length === 0 || !choices.every(takesForm) || isChoice(others) || isJson(schema.properties)) return null;
  return { ...others, oneOf: choices.map((one) => ({ title: nameOf(one), ...one })) };
}

/** What a form of answers is called that has no title: the values by which its members are told from others'. */
function nameOf({ const: value, type, properties }: Json): string {
  const fixed = Object.values(isJson(properties) ? properties : {}).flatMap((one) =>
    isJson(one) && "const" in one ? [typeof one.const === "string" ? one.const : stringify(one.const)] : [],
  );
  if (value !== undefined) return stringify(value);
  return fixed.length > 0 ? fixed.join(", ") : isJson(properties) ? Object.keys(properties).join(", ") : String(type);
}

/** The database keeps no order of members, but that of the list of required ones: these come first. */
function inOrder(properties: Json, required: unknown): Json {
  const first = (Array.isArray(required) ? (required as unknown[]) : []).filter(
    (name): name is string => typeof name === "string" && Object.hasOwn(properties, name),
  );
  return { ...Object.fromEntries(first.map((name) => [name, properties[name]])), ...properties };
}

function isChoice(schema: Json): boolean {
  return ["oneOf", "anyOf", "allOf", "if", "not"].some((name) => name in schema);
}

/** More levels than this are edited as JSON; a schema that contains itself has no end. */
const DEPTH = 10;

/** The schema with its definitions in place of references to them, and with what is optional as an optional field. */
function withoutReferences(schema: unknown, root: Json, depth: number): unknown {
  if (Array.isArray(schema)) return schema.map((one) => withoutReferences(one, root, depth));
  if (!isJson(schema)) return schema;
  if (depth > DEPTH) return {};
  const { $ref: reference, ...own } = schema;
  const rest = without(own, "$defs", "definitions");
  if (typeof reference === "string") {
    const target = reference.startsWith("#/") ? at(root, reference.slice(2).split("/")) : undefined;
    return isJson(target) ? withoutReferences({ ...target, ...rest }, root, depth + 1) : rest;
  }
  const choices = Array.isArray(rest.anyOf) ? rest.anyOf.filter(isJson) : [];
  const something = choices.filter((one) => one.type !== "null");
  if (choices.length === 2 && something.length === 1) {
    const others = without(rest, "anyOf", ...(rest.default === null ? ["default"] : []));
    const optional = { ...something[0], ...others };
    return withoutReferences(optional, root, depth + 1);
  }
  return Object.fromEntries(
    Object.entries(rest).map(([name, one]) =>
      LITERAL.has(name) ? [name, one] : [name, withoutReferences(one, root, depth + 1)],
    ),
  );
}

function without(schema: Json, ...names: string[]): Json {
  return Object.fromEntries(Object.entries(schema).filter(([name]) => !names.includes(name)));
}

/** Keywords whose values are no schemas. */
const LITERAL = new Set(["default", "const", "enum", "examples", "required"]);

function at(root: unknown, path: string[]): unknown {
  return path.reduce<unknown>(
    (value, part) => (isJson(value) ? value[part.replaceAll("~1", "/").replaceAll("~0", "~")] : undefined),
    root,
  );
}
