/** What a URL may specify about a run to start. */
export interface RunSearch {
  /** The model for agents whose task names none. */
  model?: string;
  /** The template that the run is created from: `name`, or `name@2`. */
  template?: string;
  /** The user the run is for. */
  user?: string;
  /** Initial values of input fields. */
  input?: Record<string, unknown>;
  /** The workflow's run whose input they are, if that is too long for a URL. */
  from?: string;
}

export function runSearch(search: Record<string, unknown>): RunSearch {
  const { model, template, user, input, from } = search;
  return {
    ...(typeof model === "string" && model ? { model } : {}),
    ...(typeof template === "string" && template ? { template } : {}),
    ...(typeof user === "string" && user ? { user } : {}),
    ...(typeof input === "object" && input !== null && !Array.isArray(input)
      ? { input: input as Record<string, unknown> }
      : {}),
    ...(typeof from === "string" && from ? { from } : {}),
  };
}
