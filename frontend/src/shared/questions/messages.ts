/** Messages in what LangChain's graphs read and write. */
import { stringify } from "../api/exact-json";
import { isJson, type Json } from "./asks";

export interface Message {
  /** human, ai, tool, system, or what else the graph calls it. */
  role: string;
  name: string | null;
  text: string;
  /** Tool calls: `name(arguments)`. */
  calls: string[];
}

/** The messages of a state, or of what a node wrote to it, in order. */
export function messagesIn(value: unknown): Message[] {
  const state = Array.isArray(value) ? value.findLast(isJson) : value;
  const listed = isJson(state) ? state.messages : undefined;
  const all = Array.isArray(listed) ? (listed as unknown[]) : isJson(listed) ? [listed] : [];
  return all.flatMap((one) => messageOf(one) ?? []);
}

function messageOf(value: unknown): Message | null {
  if (Array.isArray(value) && value.length === 2 && typeof value[0] === "string") {
    return { role: roleOf(value[0]), name: null, text: textOf(value[1]), calls: [] };
  }
  if (!isJson(value)) return null;
  const role = value.type ?? value.role;
  if (typeof role !== "string") return null;
  const name = role === "tool" && typeof value.name === "string" ? value.name : null;
  return { role: roleOf(role), name, text: textOf(value.content), calls: callsOf(value) };
}

function roleOf(role: string): string {
  return role === "user" ? "human" : role === "assistant" ? "ai" : role;
}

/** Contents are texts, or lists of blocks, of which those without a text are named. */
function textOf(content: unknown): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return content == null ? "" : stringify(content);
  return content
    .map((block: unknown) => {
      if (typeof block === "string") return block;
      if (!isJson(block)) return "";
      return typeof block.text === "string" ? block.text : `[${String(block.type)}]`;
    })
    .join("\n");
}

function callsOf({ tool_calls: calls }: Json): string[] {
  if (!Array.isArray(calls)) return [];
  return calls.filter(isJson).map((call) => `${String(call.name)}(${stringify(call.args ?? {})})`);
}
