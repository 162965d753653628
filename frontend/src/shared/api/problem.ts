import type { ProblemOut } from "./schema";

/** An error in a request: its place (a JSON pointer, or `?name` for a query parameter) and what to do about it. */
export interface FieldFault {
  pointer: string;
  detail: string;
}

/** Why a request failed: the API's problem details, or no response at all (`status` 0). */
export class ApiProblem extends Error {
  override readonly name = "ApiProblem";
  readonly status: number;
  readonly title: string;
  readonly detail: string;
  readonly faults: readonly FieldFault[];
  /** Seconds after which the same request may succeed. */
  readonly retryAfter: number | null;

  constructor(status: number, problem: Partial<ProblemOut>, retryAfter: number | null = null) {
    const title = problem.title ?? TITLES[status] ?? "The request failed";
    super(problem.detail ?? title);
    this.status = status;
    this.title = title;
    this.detail = problem.detail ?? `The server responded with status ${status}.`;
    this.faults = (problem.errors ?? []).map((fault) => ({
      pointer: fault.pointer ?? "",
      detail: fault.detail ?? "is invalid",
    }));
    this.retryAfter = problem.retry_after ?? retryAfter;
  }

  /** Whether the same request may succeed later. */
  get passing(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

const TITLES: Record<number, string> = {
  0: "No response",
  500: "The server failed",
  502: "The backend can't be reached",
  503: "Temporarily unavailable",
  504: "The backend can't be reached",
};

/** Reads the problem from a response, even if a proxy sent it and it isn't JSON. */
export function problemOf(response: Response, body: unknown): ApiProblem {
  const after = Number(response.headers.get("Retry-After"));
  const known = typeof body === "object" && body !== null ? body : {};
  const detail = response.status >= 500 && !("detail" in known) ? { detail: "Try again in a moment." } : {};
  return new ApiProblem(response.status, { ...known, ...detail }, Number.isFinite(after) && after > 0 ? after : null);
}

/** Converts anything thrown into a problem. */
export function asProblem(error: unknown): ApiProblem {
  if (error instanceof ApiProblem) return error;
  if (error instanceof TypeError) {
    return new ApiProblem(0, { detail: "The server can't be reached. Check the connection and try again." });
  }
  return new ApiProblem(-1, { title: "Something went wrong", detail: String(error) });
}
