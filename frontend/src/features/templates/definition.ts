import { stringify } from "@/shared/api/exact-json";

/** The parts of a template's definition that this page reads; what a newer backend adds is shown as JSON. */
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
  parallel: "All in parallel",
  sequential: "One after the other, each with the previous results",
  graph: "Each as soon as its dependencies have finished",
  supervisor: "A model chooses the next agent",
};

export const DEFAULT_MODE = "parallel";

/** The text in which it is compared and edited. */
export function pretty(definition: unknown): string {
  return stringify(definition, 2);
}
