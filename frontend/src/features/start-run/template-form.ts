import { askedFor, TEAM_KEYS } from "@/shared/api/templates";

type Json = Record<string, unknown>;

/** Which template, and which version of it: `name`, the active one, or `name@2`. */
export function referenceParts(reference: string): { name: string; version: number | null } {
  const [name = "", version] = reference.split("@");
  return { name, version: version && /^[1-9][0-9]*$/.test(version) ? Number(version) : null };
}

/**
 * The schema of the input that a run of a template is asked for.
 *
 * Who works comes from the template alone. What its agents ask for and the DAG doesn't know is asked for as text. What the
 * template gives need not be given.
 */
export function templateSchema(inputSchema: Json, definition: Json): Json {
  const given = isJson(definition.input_data) ? definition.input_data : {};
  const known = isJson(inputSchema.properties) ? inputSchema.properties : {};
  const asked = askedFor(definition);
  const properties = Object.fromEntries([
    ...Object.entries(known).filter(([name]) => !TEAM_KEYS.some((key) => key === name)),
    ...asked
      .filter((name) => !(name in known))
      .map((name): [string, unknown] => [
        name,
        { type: "string", title: titleOf(name), description: "The template's agents ask for it", maxLength: 1_000_000 },
      ]),
  ]);
  const required = [...(Array.isArray(inputSchema.required) ? (inputSchema.required as string[]) : []), ...asked];
  return {
    ...inputSchema,
    properties,
    required: [...new Set(required)].filter((name) => name in properties && given[name] === undefined),
  };
}

/** `contract_text` as a label: Contract text. */
function titleOf(name: string): string {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function isJson(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
