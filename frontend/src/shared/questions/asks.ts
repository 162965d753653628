/** What a question shows, and what it takes for an answer. Pure. */
import { isLosslessNumber, parse, rounded } from "../api/exact-json";
import type { QuestionOut } from "../api/schema";

export type Json = Record<string, unknown>;
export type DecisionType = "approve" | "edit" | "reject" | "respond";

/** A tool call that waits for approval, with the decisions that it allows. */
export interface ToolCall {
  name: string;
  args: Json;
  description: string;
  allows: DecisionType[];
}

/** A decision about one tool call, as LangChain's middleware takes it. */
export type Decision =
  | { type: "approve" }
  | { type: "edit"; edited_action: { name: string; args: Json } }
  | { type: "reject"; message?: string }
  | { type: "respond"; message: string };

const DECISIONS: readonly DecisionType[] = ["approve", "edit", "reject", "respond"];

export function isJson(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !isLosslessNumber(value);
}

/**
 * The tool calls of an approval; null if the content isn't what LangChain's middleware asks.
 *
 * `single` is a question about one call, whose answer is a decision and not a list of them.
 */
export function toolCalls({ kind, content, schema }: QuestionOut): { calls: ToolCall[]; single: boolean } | null {
  if (kind !== "approval" || !isJson(content)) return null;
  if (content.type === "tool_approval") return { calls: [callOf(content, decisionsIn(schema))], single: true };
  const { action_requests: actions, review_configs: reviews } = content;
  if (!Array.isArray(actions) || !Array.isArray(reviews)) return null;
  const allowed = new Map(
    reviews.filter(isJson).map((review) => [review.action_name, known(review.allowed_decisions)] as const),
  );
  const calls = actions.filter(isJson).map((action) => callOf(action, allowed.get(action.name) ?? []));
  return calls.length === actions.length && calls.length > 0 ? { calls, single: false } : null;
}

function callOf(action: Json, allows: DecisionType[]): ToolCall {
  const name = String(action.name);
  const description = typeof action.description === "string" ? action.description : "";
  return {
    name,
    args: isJson(action.args) ? action.args : {},
    // The middleware's own description repeats the call, which is shown anyway.
    description: description.split(`\n\nTool: ${name}\nArgs: `)[0]?.trim() ?? "",
    allows: allows.length > 0 ? allows : ["approve", "edit", "reject"],
  };
}

function known(names: unknown): DecisionType[] {
  return Array.isArray(names) ? DECISIONS.filter((one) => names.includes(one)) : [];
}

/** The decisions in the schema of a single call's answer: the values that its `type` may have. */
function decisionsIn(schema: Json | null): DecisionType[] {
  if (schema === null) return [];
  const defs = { ...asJson(schema.$defs), ...asJson(schema.definitions) };
  const options = [schema.oneOf, schema.anyOf].flatMap((one) => (Array.isArray(one) ? (one as unknown[]) : []));
  const branches = options.length > 0 ? options : [schema];
  return known(
    branches.flatMap((branch) => {
      const named = isJson(branch) ? branch : {};
      const found = typeof named.$ref === "string" ? asJson(defs[named.$ref.split("/").at(-1) ?? ""]) : named;
      const type = asJson(asJson(found.properties).type);
      return type.const === undefined ? (Array.isArray(type.enum) ? (type.enum as unknown[]) : []) : [type.const];
    }),
  );
}

function asJson(value: unknown): Json {
  return isJson(value) ? value : {};
}

/** The body that answers an approval. The same plain decision for all calls is a `decision`, which lists can show. */
export function approvalBody(
  decisions: Decision[],
  single: boolean,
): { decision: "approve" | "reject" } | { answer: unknown } {
  const [first] = decisions;
  const plain = decisions.every((one) => one.type === first?.type && Object.keys(one).length === 1);
  if (plain && (first?.type === "approve" || first?.type === "reject")) return { decision: first.type };
  return { answer: single ? first : { decisions } };
}

/** What a question shows besides its subject, as named parts. */
export interface Part {
  /** Null for a content that isn't an object. */
  name: string | null;
  value: unknown;
}

export function partsOf({ subject, content, kind }: QuestionOut): Part[] {
  if (content === null || content === undefined) return [];
  if (!isJson(content)) return saysMore(content, subject) ? [{ name: null, value: content }] : [];
  return Object.entries(content)
    .filter(([name, value]) => saysMore(value, subject) && !(kind === "question" && SCHEMAS.includes(name)))
    .map(([name, value]) => ({ name, value }));
}

/** Where a graph may put the schema of its answer, from which the form is made. */
const SCHEMAS = ["response_schema", "answer_schema", "json_schema", "schema"];

function saysMore(value: unknown, subject: string): boolean {
  return typeof value !== "string" || value.split(/\s+/).filter(Boolean).join(" ") !== subject;
}

/** A text that the question is about, which an answer may begin with: the longest one. */
export function draftOf(question: QuestionOut): string | null {
  const texts = partsOf(question).flatMap(({ value }) =>
    typeof value === "string" && !/^[a-z]+:\S*$/i.test(value) ? [value] : [],
  );
  return texts.reduce<string | null>((longest, text) => (text.length > (longest?.length ?? 0) ? text : longest), null);
}

/** The answers that the graph offers, if its content lists them. */
export function optionsOf({ content }: QuestionOut): string[] {
  if (!isJson(content)) return [];
  const listed = content.options ?? content.choices;
  if (!Array.isArray(listed) || listed.length > 12) return [];
  const texts = listed.filter((one): one is string => typeof one === "string" && one !== "" && one.length <= 80);
  return texts.length === listed.length ? texts : [];
}

const YES_OR_NO =
  /^(do|does|did|is|are|was|should|shall|can|could|may|will|would|ok|okay|approve|confirm|proceed)\b|\bapprov/i;

/** Whether it reads like a question that true or false answers. */
export function readsLikeYesOrNo(question: QuestionOut): boolean {
  return optionsOf(question).length === 0 && question.subject.endsWith("?") && YES_OR_NO.test(question.subject);
}

/** The value that a text would be as JSON, if someone could have meant that: a number, true, false, a list, an object. */
export function asJsonValue(text: string): { value: unknown } | null {
  const trimmed = text.trim();
  if (!/^(-?\d|true$|false$|null$|[[{])/.test(trimmed)) return null;
  try {
    return { value: parse(trimmed) };
  } catch {
    return null;
  }
}

/** Where a part of a picture is marked: a box in its pixels. */
export interface QuestionPicture {
  url: string;
  box: [number, number, number, number] | null;
}

const PICTURE_NAME = /image|picture|photo|screenshot|page_url|thumbnail/i;
const PICTURE_FILE = /^https?:\/\/[^?#]+\.(png|jpe?g|gif|webp|avif|bmp|tiff?)([?#]|$)/i;

/** The pictures in a content, with the region that is beside each of them. */
export function picturesIn(
  exact: unknown,
  name = "",
  found: QuestionPicture[] = [],
  box: unknown = null,
): QuestionPicture[] {
  const value = name === "" ? rounded(exact) : exact;
  if (found.length >= 12) return found;
  if (typeof value === "string") {
    const certain = /^(upload|sample):\/\/|^data:image\//i.test(value) || PICTURE_FILE.test(value);
    const url = certain || (PICTURE_NAME.test(name) && /^https?:\/\//i.test(value)) ? value : null;
    if (url && !found.some((one) => one.url === url)) found.push({ url, box: boxOf(box) });
  } else if (Array.isArray(value)) {
    for (const one of value) picturesIn(one, name || "list", found, box);
  } else if (isJson(value)) {
    const beside = value.box ?? value.bbox ?? value.region ?? null;
    for (const [member, one] of Object.entries(value)) picturesIn(one, member, found, beside ?? box);
  }
  return found;
}

function boxOf(value: unknown): QuestionPicture["box"] {
  const edges = isJson(value) ? (value.box ?? value.bbox) : value;
  if (!Array.isArray(edges) || edges.length !== 4) return null;
  const known = edges.every((edge) => typeof edge === "number" && Number.isFinite(edge) && edge >= 0);
  return known ? (edges as QuestionPicture["box"]) : null;
}
