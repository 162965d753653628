import createClient from "openapi-fetch";
import { problemOf } from "./problem";
import type { paths } from "./schema";

/** The API with its types. It is on this page's own origin; the session cookie goes along by itself. */
export const api = createClient<paths>({
  baseUrl: globalThis.location.origin,
  // Asked for at each call, so that tests can replace it.
  fetch: (request) => globalThis.fetch(request),
});

/** What a call comes to: data, or an error and why. */
type Answer<T> = Promise<{ data?: T; error?: unknown; response: Response }>;

/**
 * The answer of a call: `await answer(api.GET("/workflows"))`.
 *
 * Throws `ApiProblem` for everything but success, and a `TypeError` when nobody answers.
 */
export async function answer<T>(call: Answer<T>): Promise<T> {
  const { data, error, response } = await call;
  if (!response.ok) throw problemOf(response, error);
  return data as T;
}
