import { jsonLanguage } from "@codemirror/lang-json";
import type { SyntaxNode, Tree } from "@lezer/common";
import type { Path } from "./json-schema";

/** A range of a text, the end exclusive. */
export interface Span {
  from: number;
  to: number;
}

export function parse(text: string): Tree {
  return jsonLanguage.parser.parse(text);
}

/**
 * Finds the value of a JSON pointer in a text; for a missing key, the object that lacks it.
 *
 * A large value is marked by its first line, a member by its key.
 */
export function spanOf(text: string, pointer: string, tree: Tree = parse(text)): Span {
  let node = valueIn(tree.topNode);
  let shown: Span | null = node && firstLine(text, node);
  for (const step of pointer.split("/").slice(1)) {
    const name = step.replaceAll("~1", "/").replaceAll("~0", "~");
    const [key, value] = childAt(text, node, name);
    if (!value) break;
    node = value;
    shown = key ? { from: key.from, to: key.to } : firstLine(text, value);
    if (key && !isLarge(value)) shown = { from: key.from, to: value.to };
  }
  return shown ?? { from: 0, to: Math.min(1, text.length) };
}

/** Where a text stops being valid JSON; null if it is valid. */
export function syntaxErrorAt(text: string): number | null {
  let found: number | null = null;
  parse(text).iterate({
    enter: (node) => {
      if (node.type.isError) found ??= node.from;
    },
  });
  return found;
}

/** The line of a position, counted from 1. */
export function lineOf(text: string, position: number): number {
  return text.slice(0, position).split("\n").length;
}

/** The path of a position as keys and indexes, and whether a key is expected there. */
export function pathAt(text: string, position: number, tree: Tree = parse(text)): { path: Path; key: boolean } {
  let node: SyntaxNode = tree.resolveInner(position, -1);
  const inKey = node.name === "PropertyName";
  const key = inKey || node.name === "Object" || (node.name === "{" && position > node.from);
  if (inKey && node.parent) node = node.parent;
  const path: Path = [];
  for (let child = node, above = node.parent; above; child = above, above = above.parent) {
    if (child.name === "Property" && !(inKey && child === node)) {
      const name = child.getChild("PropertyName");
      if (name) path.unshift(textOf(text, name));
    }
    if (above.name === "Array") path.unshift(items(above).findIndex((item) => item.from === child.from));
  }
  // Between the items of a list: which index it is makes no difference to what is allowed.
  if (node.name === "Array" || node.name === "[") path.push(0);
  return { path: path.filter((step) => step !== -1), key };
}

/** The keys that the object at a path already has. */
export function keysIn(text: string, path: Path, tree: Tree = parse(text)): string[] {
  let node = valueIn(tree.topNode);
  for (const step of path) [, node] = childAt(text, node, String(step));
  return node?.name === "Object" ? members(node).map((member) => nameOf(text, member)) : [];
}

function childAt(text: string, node: SyntaxNode | null, name: string): [SyntaxNode | null, SyntaxNode | null] {
  if (node?.name === "Array") return [null, items(node)[Number(name)] ?? null];
  if (node?.name !== "Object") return [null, null];
  const member = members(node).find((one) => nameOf(text, one) === name);
  return member ? [member.getChild("PropertyName"), valueIn(member)] : [null, null];
}

const VALUES = new Set(["Object", "Array", "String", "Number", "True", "False", "Null"]);

function valueIn(node: SyntaxNode): SyntaxNode | null {
  return items(node)[0] ?? null;
}

function items(node: SyntaxNode): SyntaxNode[] {
  const found: SyntaxNode[] = [];
  for (let child = node.firstChild; child; child = child.nextSibling) if (VALUES.has(child.name)) found.push(child);
  return found;
}

function members(object: SyntaxNode): SyntaxNode[] {
  return object.getChildren("Property");
}

function nameOf(text: string, member: SyntaxNode): string {
  const key = member.getChild("PropertyName");
  return key ? textOf(text, key) : "";
}

function textOf(text: string, node: SyntaxNode): string {
  const raw = text.slice(node.from, node.to);
  try {
    return String(JSON.parse(raw));
  } catch {
    return raw.replaceAll('"', "");
  }
}

function isLarge(node: SyntaxNode): boolean {
  return node.name === "Object" || node.name === "Array";
}

function firstLine(text: string, node: SyntaxNode): Span {
  const end = text.indexOf("\n", node.from);
  return { from: node.from, to: end === -1 ? node.to : Math.min(node.to, end) };
}
