/** A run's input without the system's own additions. */
export function userInput(input: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(input).filter(([name]) => name !== "_visual_ai"));
}
