import type { operations } from "@/shared/api/schema";

/** A kind of error. */
export type Category = NonNullable<
  NonNullable<operations["list_executions_workflow_status_get"]["parameters"]["query"]>["error_category"]
>;

interface CategoryLook {
  label: string;
  /** What it is, and what becomes of the run. */
  meaning: string;
}

export const CATEGORY_LOOKS: Record<Category, CategoryLook> = {
  rate_limit: { label: "Rate limit", meaning: "The model's provider asked to slow down. Retried after a wait." },
  timeout: { label: "Timeout", meaning: "No answer in time. Retried with shorter timeouts." },
  context_length: { label: "Prompt too long", meaning: "More than the model holds. The next model takes over." },
  server: { label: "Server", meaning: "The provider failed or the connection broke. Retried, then the next model." },
  auth: { label: "Authentication", meaning: "The key was refused. The task fails at once: correct the key." },
  quota: { label: "Quota", meaning: "The account has nothing left. The task fails at once: top it up." },
  bad_request: { label: "Bad request", meaning: "The provider refused the request as wrong. The task fails at once." },
  content_filter: { label: "Content filter", meaning: "The provider refused the content. The task fails at once." },
  invalid_output: {
    label: "Invalid output",
    meaning: "The answer did not fit its schema. Sent back once, then failed.",
  },
  budget: { label: "Budget", meaning: "The run's budget is spent. The task fails at once." },
  tool: { label: "Tool", meaning: "A tool of the agent failed. The task's own retries count." },
  input: { label: "Input", meaning: "The agent's input is wrong. The task fails at once: correct the input." },
  cancelled: { label: "Cancelled", meaning: "Somebody stopped the run." },
  internal: { label: "Internal", meaning: "Something unforeseen. The task's own retries count; its log says more." },
};

export const CATEGORIES = Object.keys(CATEGORY_LOOKS) as Category[];

/** How a kind of error is called and what it means; also one that a later backend knows. */
export function categoryLook(category: string): CategoryLook {
  return category in CATEGORY_LOOKS
    ? CATEGORY_LOOKS[category as Category]
    : { label: category.replaceAll("_", " "), meaning: "" };
}
