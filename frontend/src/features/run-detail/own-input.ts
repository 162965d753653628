/** A run's input without what the system adds to it. */
export function ownInput(input: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(input).filter(([name]) => name !== "_visual_ai"));
}
