import { askedFor, TEAM_KEYS } from "@/shared/api/templates";

type Json = Record<string, unknown>;

/** A template and optionally its version: `name` for the active one, or `name@2`. */
export function referenceParts(reference: string): { name: string; version: number | null } {
  const [name = "", version] = reference.split("@");
  return { name, version: version && /^[1-9][0-9]*$/.test(version) ? Number(version) : null };
}

/**
 * Returns the schema of the input that a template's run asks for.
 *
 * The agents come only from the template. A field that they need but the DAG doesn't declare is asked for as text. What
 * the template provides isn't required.
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
        { type: "string", title: titleOf(name), description: "Needed by the template's agents", maxLength: 1_000_000 },
      ]),
  ]);
  const required = [...(Array.isArray(inputSchema.required) ? (inputSchema.required as string[]) : []), ...asked];
  return {
    ...inputSchema,
    properties,
    required: [...new Set(required)].filter((name) => name in properties && given[name] === undefined),
  };
}

/** Turns `contract_text` into a label: Contract text. */
function titleOf(name: string): string {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function isJson(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
