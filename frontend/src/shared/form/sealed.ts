/**
 * Numbers that JavaScript would round, in the values of a form.
 *
 * The form library copies objects member by member and knows no numbers but JavaScript's. So an exact number goes through
 * a form as a text: its JSON after a NUL character, which no input contains because PostgreSQL can't store it.
 */
import { changed, isLosslessNumber, LosslessNumber, toNumber } from "@/shared/api/exact-json";

const SEAL = "\u0000";

/** A form's value for a value with exact numbers. */
export function sealed(value: unknown): unknown {
  return changed(value, (number) => SEAL + number.value);
}

/** The value with exact numbers that a form's value stands for. */
export function unsealed(value: unknown): unknown {
  if (typeof value === "string") return value.startsWith(SEAL) ? new LosslessNumber(value.slice(1)) : value;
  if (Array.isArray(value)) return value.map(unsealed);
  if (typeof value !== "object" || value === null || isLosslessNumber(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, unsealed(one)]));
}

/** What a field shows for its number. */
export function shownNumber(value: unknown): unknown {
  const number = unsealed(value);
  return isLosslessNumber(number) ? number.value : number;
}

/** A form's value for what was typed into a number's field; what is no number stays a text, which is then refused. */
export function typedNumber(typed: unknown): unknown {
  if (typeof typed !== "string") return typed;
  const text = typed.trim();
  return text === "" ? undefined : sealed(toNumber(text) ?? text);
}
