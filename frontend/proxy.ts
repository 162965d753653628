/**
 * What goes to the backend. The page, its API and its streams are one origin, here as in production:
 * the session is a cookie that is sent to no other site, and no CORS is needed.
 */
import type { ServerResponse } from "node:http";
import type { ProxyOptions } from "vite";
import serving from "./serving.json" with { type: "json" };

/** First segments of the API's paths. No page of the application may begin with one of them. */
export const API_PATHS: readonly string[] = serving.api;

const UNREACHABLE = {
  type: "about:blank",
  title: "Service Unavailable",
  status: 503,
  detail: "The backend can't be reached. Try again in a few seconds.",
};

/** The proxy rules of `vite dev` and `vite preview` for a backend at `target`. */
export function proxyTo(target: string): Record<string, ProxyOptions> {
  // Whole segments only: `/runs` of ours must never match a `/run` of the API's.
  const rule = `^(${API_PATHS.map((path) => path.replaceAll(".", "\\.")).join("|")})(/|\\?|$)`;
  return {
    [rule]: {
      target,
      // `X-Forwarded-For` tells the backend that the request is not from its own machine, whatever the connection says.
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
