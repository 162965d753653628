import type { FieldFault } from "@/shared/api/problem";
import { brokenAt } from "./json-places";
import { faultsOf, type Fault, type Schema } from "./json-schema";

const DEFINITION = "/definition";

/** What an editor's text comes to. */
export interface Draft {
  /** Null when the text is no JSON object. */
  definition: Record<string, unknown> | null;
  faults: Fault[];
}

/** Reads a text; the faults are those that are known without the server. */
export function readDraft(text: string, schema: Schema | undefined): Draft {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const fault = { pointer: "", detail: `This is not JSON: ${reasonOf(error)}`, position: brokenAt(text) ?? 0 };
    return { definition: null, faults: [fault] };
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return { definition: null, faults: [{ pointer: "", detail: "A definition is an object: { … }" }] };
  }
  return { definition: value as Record<string, unknown>, faults: schema ? faultsOf(schema, value) : [] };
}

/** What the server said of the definition, as places in it. */
export function inDefinition(faults: readonly FieldFault[]): Fault[] {
  return faults
    .filter(({ pointer }) => isInDefinition(pointer))
    .map(({ pointer, detail }) => ({ pointer: pointer.slice(DEFINITION.length), detail }));
}

export function isInDefinition(pointer: string): boolean {
  return pointer === DEFINITION || pointer.startsWith(`${DEFINITION}/`);
}

/** A definition to begin with. */
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
