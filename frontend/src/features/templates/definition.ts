/** A template's definition as far as this page reads it; what a later backend adds is shown as JSON. */
export interface Definition {
  dag_id?: string;
  description?: string;
  input_data?: Record<string, unknown>;
  model?: string;
  budget?: { max_cost_usd?: number | null; max_tokens?: number | null; max_steps?: number | null };
  agents?: Agent[];
  orchestration_mode?: string;
  synthesis?: boolean | Record<string, unknown>;
  supervisor?: Record<string, unknown>;
  max_steps?: number;
  error_policy?: Record<string, unknown>;
}

export interface Agent {
  name: string;
  type?: string;
  graph?: string;
  model?: string;
  depends_on?: string[];
  required?: boolean;
  description?: string;
  input_data?: Record<string, unknown>;
  [key: string]: unknown;
}

export const MODES: Record<string, string> = {
  parallel: "All at once",
  sequential: "One after the other, each with the results before it",
  graph: "Each as soon as those that it depends on are done",
  supervisor: "A model picks who works next",
};

export const DEFAULT_MODE = "parallel";

/** As it is compared and edited. */
export function pretty(definition: unknown): string {
  return JSON.stringify(definition, null, 2);
}
