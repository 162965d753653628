/** What an address may say about a run to start. */
export interface RunSearch {
  /** The model of all agents whose task names none. */
  model?: string;
  /** The template that the run is made of: `name`, or `name@2`. */
  template?: string;
  /** On whose behalf. */
  user?: string;
  /** Values of input fields to begin with. */
  input?: Record<string, unknown>;
}

export function runSearch(search: Record<string, unknown>): RunSearch {
  const { model, template, user, input } = search;
  return {
    ...(typeof model === "string" && model ? { model } : {}),
    ...(typeof template === "string" && template ? { template } : {}),
    ...(typeof user === "string" && user ? { user } : {}),
    ...(typeof input === "object" && input !== null && !Array.isArray(input)
      ? { input: input as Record<string, unknown> }
      : {}),
  };
}
