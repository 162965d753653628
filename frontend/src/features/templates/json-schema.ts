/** The part of JSON Schema that definitions use: `$ref`, `anyOf`, types, `enum`, `const`, `required`, unknown keys. */

export type Schema = Record<string, unknown>;
export type Path = (string | number)[];

/** An error in a value: its place (a JSON pointer) and a description. */
export interface Fault {
  pointer: string;
  detail: string;
  /** The position of an error without a pointer, in a text that isn't valid JSON. */
  position?: number;
}

/** An object's key with its description, for help and completion. */
export interface Key {
  name: string;
  type: string;
  description: string;
  required: boolean;
}

/** A schema's alternatives with references resolved, without null. */
export function branches(root: Schema, schema: unknown): Schema[] {
  if (!isObject(schema)) return [];
  if (typeof schema.$ref === "string") {
    const { $ref: reference, ...own } = schema;
    const name = reference.split("/").at(-1) ?? "";
    const target = isObject(root.$defs) ? root.$defs[name] : undefined;
    return branches(root, target).map((branch) => ({ ...branch, ...own }));
  }
  const options = schema.anyOf ?? schema.oneOf;
  if (!Array.isArray(options)) return schema.type === "null" ? [] : [schema];
  const own = Object.fromEntries(Object.entries(schema).filter(([name]) => name !== "anyOf" && name !== "oneOf"));
  return options.flatMap((option) => branches(root, option)).map((branch) => ({ ...branch, ...own }));
}

/** The schemas for a place; empty if the schema doesn't define it. */
export function schemasAt(root: Schema, path: Path): Schema[] {
  return path.reduce<Schema[]>(
    (here, step) =>
      here.flatMap((schema) => {
        if (typeof step === "number") return branches(root, schema.items);
        const known = isObject(schema.properties) ? schema.properties[step] : undefined;
        return branches(root, known ?? schema.additionalProperties);
      }),
    branches(root, root),
  );
}

/** The keys that an object at a place may have. */
export function keysAt(root: Schema, path: Path): Key[] {
  const keys = new Map<string, Key>();
  for (const schema of schemasAt(root, path)) {
    const required = Array.isArray(schema.required) ? schema.required : [];
    for (const [name, property] of Object.entries(isObject(schema.properties) ? schema.properties : {})) {
      keys.set(name, {
        name,
        type: typeName(root, property),
        description: isObject(property) ? descriptionOf(root, property) : "",
        required: required.includes(name),
      });
    }
  }
  return [...keys.values()];
}

/** The values allowed at a place, if they are enumerated. */
export function valuesAt(root: Schema, path: Path): unknown[] {
  return schemasAt(root, path).flatMap((schema) => {
    if (Array.isArray(schema.enum)) return schema.enum as unknown[];
    if (schema.const !== undefined) return [schema.const];
    return schema.type === "boolean" ? [true, false] : [];
  });
}

/** The ways in which a value violates the schema. The server checks more; this is immediate. */
export function faultsOf(root: Schema, value: unknown): Fault[] {
  return check(root, branches(root, root), value, "");
}

function check(root: Schema, schemas: Schema[], value: unknown, pointer: string): Fault[] {
  if (schemas.length === 0 || value === null) return [];
  const fitting = schemas.filter((schema) => schema.type === undefined || schema.type === typeOf(value, schema.type));
  const [schema] = fitting;
  if (!schema) {
    const wanted = [...new Set(schemas.map((one) => nameOf(String(one.type))))].join(" or ");
    return [{ pointer, detail: `is ${nameOf(typeOf(value, ""))}; it must be ${wanted}` }];
  }
  if (Array.isArray(schema.enum) && !schema.enum.includes(value)) {
    return [{ pointer, detail: `isn't one of ${schema.enum.map((one) => JSON.stringify(one)).join(", ")}` }];
  }
  if (Array.isArray(value)) {
    const items = branches(root, schema.items);
    return value.flatMap((item: unknown, index) => check(root, items, item, `${pointer}/${index}`));
  }
  return isObject(value) ? checkObject(root, schema, value, pointer) : [];
}

function checkObject(root: Schema, schema: Schema, value: Schema, pointer: string): Fault[] {
  const properties = isObject(schema.properties) ? schema.properties : {};
  const required = Array.isArray(schema.required) ? (schema.required as string[]) : [];
  const missing = required
    .filter((name) => !(name in value))
    .map((name) => ({ pointer: `${pointer}/${escaped(name)}`, detail: "is missing" }));
  return Object.entries(value).reduce((faults, [name, member]) => {
    const place = `${pointer}/${escaped(name)}`;
    if (name in properties) return [...faults, ...check(root, branches(root, properties[name]), member, place)];
    if (schema.additionalProperties !== false) return faults;
    return [
      ...faults,
      { pointer: place, detail: `isn't allowed here; the keys are ${Object.keys(properties).join(", ")}` },
    ];
  }, missing);
}

function typeOf(value: unknown, wanted: unknown): string {
  if (Array.isArray(value)) return "array";
  if (value === null) return "null";
  if (typeof value === "number") return Number.isInteger(value) && wanted !== "number" ? "integer" : "number";
  return typeof value;
}

const TYPE_NAMES: Record<string, string> = {
  string: "a text",
  integer: "a whole number",
  number: "a number",
  boolean: "true or false",
  array: "a list",
  object: "an object",
  null: "null",
};

function nameOf(type: string): string {
  return TYPE_NAMES[type] ?? type;
}

function typeName(root: Schema, property: unknown): string {
  const names = branches(root, property).map((branch) => {
    if (Array.isArray(branch.enum)) return branch.enum.map((one) => JSON.stringify(one)).join(" | ");
    return typeof branch.type === "string" ? nameOf(branch.type).replace(/^an? /, "") : "any";
  });
  return [...new Set(names)].join(" or ");
}

function descriptionOf(root: Schema, property: Schema): string {
  if (typeof property.description === "string") return property.description;
  const described = branches(root, property).find((branch) => typeof branch.description === "string");
  return typeof described?.description === "string" ? described.description : "";
}

function escaped(name: string): string {
  return name.replaceAll("~", "~0").replaceAll("/", "~1");
}

function isObject(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
