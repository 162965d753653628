import createClient from "openapi-fetch";
import { problemOf } from "./problem";
import type { paths } from "./schema";

/** The typed API client. The API is on this page's origin, so the session cookie is sent automatically. */
export const api = createClient<paths>({
  baseUrl: globalThis.location.origin,
  // Looked up at each call, so that tests can replace it.
  fetch: (request) => globalThis.fetch(request),
});

/** The outcome of a call: data, or an error with its response. */
type Answer<T> = Promise<{ data?: T; error?: unknown; response: Response }>;

/**
 * Returns the data of a call: `await answer(api.GET("/workflows"))`.
 *
 * Throws `ApiProblem` for error responses, and `TypeError` if there is no response.
 */
export async function answer<T>(call: Answer<T>): Promise<T> {
  const { data, error, response } = await call;
  if (!response.ok) throw problemOf(response, error);
  return data as T;
}
