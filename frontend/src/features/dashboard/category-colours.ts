/** The figure colours available to error categories. */
const COLOURS = ["orange", "blue", "red", "purple", "green"] as const;

/** Frequent categories have a fixed colour, whatever else is shown. */
const OWN: Record<string, (typeof COLOURS)[number]> = {
  rate_limit: "orange",
  timeout: "blue",
  server: "red",
  context_length: "purple",
  invalid_output: "green",
};

/** Categories shown individually; more than that can't be told apart. */
export const SHOWN_KINDS = COLOURS.length;

/** A distinct colour for each of these categories, at most `SHOWN_KINDS`. */
export function coloursOf(categories: readonly string[]): Record<string, string> {
  const shown = categories.slice(0, SHOWN_KINDS);
  const taken = new Set(shown.map((category) => OWN[category]));
  const free = COLOURS.filter((colour) => !taken.has(colour));
  return Object.fromEntries(shown.map((category) => [category, OWN[category] ?? free.shift() ?? "grey"]));
}
