import type { operations } from "@/shared/api/schema";

/** An error category. */
export type Category = NonNullable<
  NonNullable<operations["list_executions_workflow_status_get"]["parameters"]["query"]>["error_category"]
>;

interface CategoryLook {
  label: string;
  /** What it means, and what happens to the run. */
  meaning: string;
}

export const CATEGORY_LOOKS: Record<Category, CategoryLook> = {
  rate_limit: { label: "Rate limit", meaning: "The model provider asked to slow down. Retried after a wait." },
  timeout: { label: "Timeout", meaning: "No response in time. Retried with shorter timeouts." },
  context_length: {
    label: "Prompt too long",
    meaning: "More than the model's context can hold. The next model takes over.",
  },
  server: { label: "Server", meaning: "The provider failed or the connection broke. Retried, then the next model." },
  auth: { label: "Authentication", meaning: "The key was rejected. The task fails immediately: correct the key." },
  quota: { label: "Quota", meaning: "The account's quota is used up. The task fails immediately: top it up." },
  bad_request: {
    label: "Bad request",
    meaning: "The provider rejected the request as invalid. The task fails immediately.",
  },
  content_filter: {
    label: "Content filter",
    meaning: "The provider rejected the content. The task fails immediately.",
  },
  invalid_output: {
    label: "Invalid output",
    meaning: "The answer doesn't fit its schema. It is sent back once, then the task fails.",
  },
  budget: { label: "Budget", meaning: "The run's budget is spent. The task fails immediately." },
  tool: { label: "Tool", meaning: "One of the agent's tools failed. The task's own retries apply." },
  input: { label: "Input", meaning: "The agent's input is invalid. The task fails immediately: correct the input." },
  cancelled: { label: "Cancelled", meaning: "Someone cancelled the run." },
  internal: { label: "Internal", meaning: "An unexpected error. The task's own retries apply; its log has details." },
};

export const CATEGORIES = Object.keys(CATEGORY_LOOKS) as Category[];

/** A category's label and meaning, also for one that only a newer backend knows. */
export function categoryLook(category: string): CategoryLook {
  return category in CATEGORY_LOOKS
    ? CATEGORY_LOOKS[category as Category]
    : { label: category.replaceAll("_", " "), meaning: "" };
}
