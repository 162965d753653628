import createClient from "openapi-fetch";
import { parseAnswer, stringify } from "./exact-json";
import { problemOf } from "./problem";
import type { paths } from "./schema";

const client = createClient<paths>({
  baseUrl: globalThis.location.origin,
  // Looked up at each call, so that tests can replace it.
  fetch: (request) => globalThis.fetch(request),
  bodySerializer: (body: unknown) => stringify(body),
});

/**
 * The typed API client. The API is on this page's origin, so the session cookie is sent automatically. Numbers of users'
 * values are sent and received as they are written (`exact-json`).
 */
export const api = {
  GET: exact(client.GET),
  POST: exact(client.POST),
  PUT: exact(client.PUT),
  DELETE: exact(client.DELETE),
};

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

/** The same method, whose answers are parsed here: openapi-fetch would round their numbers. */
function exact<Method>(method: Method): Method {
  const send = method as (path: string, init?: object) => Answer<unknown>;
  const sent = async (path: string, init?: object) => {
    const outcome = await send(path, { ...init, parseAs: "text" });
    return typeof outcome.data === "string" ? { ...outcome, data: parseAnswer(outcome.data) } : outcome;
  };
  return sent as Method;
}
