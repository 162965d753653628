import { parse, rounded } from "@/shared/api/exact-json";
import type { FieldFault } from "@/shared/api/problem";
import { syntaxErrorAt } from "./json-positions";
import { faultsOf, type Fault, type Schema } from "./json-schema";

const DEFINITION = "/definition";

/** The parsed text of an editor. */
export interface Draft {
  /** Null if the text isn't a JSON object. */
  definition: Record<string, unknown> | null;
  faults: Fault[];
}

/** Parses a text and returns the errors that can be found without the server. */
export function readDraft(text: string, schema: Schema | undefined): Draft {
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    const fault = {
      pointer: "",
      detail: `This isn't valid JSON: ${reasonOf(error)}`,
      position: syntaxErrorAt(text) ?? 0,
    };
    return { definition: null, faults: [fault] };
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return { definition: null, faults: [{ pointer: "", detail: "A definition must be an object: { … }" }] };
  }
  return { definition: value as Record<string, unknown>, faults: schema ? faultsOf(schema, rounded(value)) : [] };
}

/** The server's errors about the definition, by place. */
export function inDefinition(faults: readonly FieldFault[]): Fault[] {
  return faults
    .filter(({ pointer }) => isInDefinition(pointer))
    .map(({ pointer, detail }) => ({ pointer: pointer.slice(DEFINITION.length), detail }));
}

export function isInDefinition(pointer: string): boolean {
  return pointer === DEFINITION || pointer.startsWith(`${DEFINITION}/`);
}

/** The initial definition of a new template. */
export const FIRST_DRAFT = {
  dag_id: "multi_agent_workflow",
  description: "",
  input_data: { query: "What is this about?" },
  orchestration_mode: "parallel",
  agents: [
    { name: "seen", type: "vision" },
    { name: "read", type: "text", required: false },
  ],
};

function reasonOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/^JSON\.parse: /, "").replace(/ in JSON at position.*$/, "");
}
