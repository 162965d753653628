/**
 * The requests that are proxied to the backend. The page, its API and its streams share one origin, here as in
 * production: the session is a same-site cookie, and no CORS is needed.
 */
import type { ServerResponse } from "node:http";
import type { ProxyOptions } from "vite";
import serving from "./serving.json" with { type: "json" };

/** The first segments of the API's paths. No page's path may begin with one of them. */
export const API_PATHS: readonly string[] = serving.api;

const UNREACHABLE = {
  type: "about:blank",
  title: "Service Unavailable",
  status: 503,
  detail: "The backend can't be reached. Try again in a few seconds.",
};

/** The proxy rules of `vite dev` and `vite preview` for a backend at `target`. */
export function proxyTo(target: string): Record<string, ProxyOptions> {
  // Whole segments only: a page's `/runs` must never match an API's `/run`.
  const rule = `^(${API_PATHS.map((path) => path.replaceAll(".", "\\.")).join("|")})(/|\\?|$)`;
  return {
    [rule]: {
      target,
      // `X-Forwarded-For` tells the backend that the request may come from another machine, whatever the connection says.
      xfwd: true,
      configure: (proxy) => {
        proxy.on("error", (_error, _request, response) => {
          if ("setHeader" in response && !response.headersSent) unreachable(response);
        });
      },
    },
  };
}

function unreachable(response: ServerResponse) {
  response.writeHead(503, { "Content-Type": "application/problem+json", "Retry-After": "5" });
  response.end(JSON.stringify(UNREACHABLE));
}
