/**
 * JSON whose numbers keep what they were written as.
 *
 * JavaScript reads 9007199254740993 as …992, and 1.0 and -0 as 1 and 0, which are other values in Python. Such a number
 * becomes a `LosslessNumber`, which holds its text; all others are plain numbers.
 */
import { isLosslessNumber, LosslessNumber, parse as parseWith, stringify as write } from "lossless-json";

export { isLosslessNumber, LosslessNumber };

/** The members of the API's answers and events that are users' own values. All other numbers are for computing. */
const FREE = new Set([
  "input_data",
  "result",
  "output",
  "data",
  "context",
  "definition",
  "input_schema",
  "payload",
  "excerpt",
  "content",
  "answer",
  "schema",
]);

/** What a text has to contain so that any number in it could be written differently: an optimisation. */
const UNUSUAL = /[\d.]{16}|-0|\d[eE]|\.\d*0(?!\d)/;

/** Parses JSON. Throws `SyntaxError`, as `JSON.parse` does. */
export function parse(text: string): unknown {
  const plain = JSON.parse(text) as unknown;
  return UNUSUAL.test(text)
    ? parseWith(text, null, { parseNumber: numberOf, onDuplicateKey: ({ newValue }) => newValue })
    : plain;
}

/** Parses an answer or event of the API: users' values exactly, and the API's own numbers as plain ones. */
export function parseAnswer(text: string): unknown {
  return changed(parse(text), (number) => Number(number.value), FREE);
}

/** JSON text with every number as it was read. */
export function stringify(value: unknown, space?: number): string {
  return write(value, null, space) ?? "null";
}

/** The same value with plain numbers only, which may be rounded. */
export function rounded(value: unknown): unknown {
  return changed(value, (number) => Number(number.value));
}

/** The number in a JSON text, or in what someone typed; undefined if it is none. */
export function toNumber(text: string): number | LosslessNumber | undefined {
  return /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(text) ? numberOf(text) : undefined;
}

/** A copy in which the exact numbers are replaced, except inside the members named `except`. */
export function changed(value: unknown, to: (number: LosslessNumber) => unknown, except?: Set<string>): unknown {
  if (isLosslessNumber(value)) return to(value);
  if (Array.isArray(value)) return value.map((one) => changed(one, to, except));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, one]) => [name, except?.has(name) ? one : changed(one, to, except)]),
  );
}

function numberOf(text: string): number | LosslessNumber {
  const number = Number(text);
  return String(number) === text ? number : new LosslessNumber(text);
}
