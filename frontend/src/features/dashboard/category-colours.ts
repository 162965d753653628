/** The colours of a figure that kinds of errors can have. */
const COLOURS = ["orange", "blue", "red", "purple", "green"] as const;

/** Frequent kinds have one of their own, so that they keep it whatever else is there. */
const OWN: Record<string, (typeof COLOURS)[number]> = {
  rate_limit: "orange",
  timeout: "blue",
  server: "red",
  context_length: "purple",
  invalid_output: "green",
};

/** So many kinds are shown by themselves; more than that nobody tells apart. */
export const SHOWN_KINDS = COLOURS.length;

/** A colour for each of these kinds, at most `SHOWN_KINDS`; no two have the same. */
export function coloursOf(categories: readonly string[]): Record<string, string> {
  const shown = categories.slice(0, SHOWN_KINDS);
  const taken = new Set(shown.map((category) => OWN[category]));
  const free = COLOURS.filter((colour) => !taken.has(colour));
  return Object.fromEntries(shown.map((category) => [category, OWN[category] ?? free.shift() ?? "grey"]));
}
