/**
 * The requests that are proxied to the backend. The page, its API and its streams share one origin, here as in
 * production: the session is a same-site cookie, and no CORS is needed.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
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
      ws: true,
      // `X-Forwarded-For` tells the backend that the request may come from another machine, whatever the connection says.
      xfwd: true,
      configure: (proxy) => {
        proxy.on("error", (_error, request, response) => {
          if ("setHeader" in response && !response.headersSent) unreachable(request, response);
        });
        proxy.on("proxyRes", (answer, request, response) => {
          // When the backend dies in the middle of a response, the client has to hear of it.
          answer.on("close", () => {
            if (!answer.complete) response.destroy();
          });
          // The backend itself says that it is starting or going away.
          if (answer.statusCode === 503 && isEventSource(request)) {
            answer.resume();
            comeBack(response);
          }
        });
      },
    },
  };
}

const streams = new RegExp(serving.streams);

/**
 * Whether an `EventSource` asks for a stream: it gives up for good on any status but 200. Other clients, which don't
 * send `Cache-Control: no-cache`, may take a stream that closes for one that has ended, so they get the error.
 */
function isEventSource({ method, url, headers }: IncomingMessage): boolean {
  return (
    method === "GET" &&
    streams.test(url?.split("?")[0] ?? "") &&
    /^text\/event-stream/i.test(headers.accept ?? "") &&
    /no-cache/i.test(headers["cache-control"] ?? "")
  );
}

/** A stream without events. The client asks again, with the same `Last-Event-ID`. */
function comeBack(response: ServerResponse) {
  response.writeHead(200, {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
  });
  response.end("retry: 2000\n: the backend can't be reached\n\n");
}

function unreachable(request: IncomingMessage, response: ServerResponse) {
  if (isEventSource(request)) {
    comeBack(response);
    return;
  }
  response.writeHead(503, { "Content-Type": "application/problem+json", "Retry-After": "5" });
  response.end(JSON.stringify(UNREACHABLE));
}
