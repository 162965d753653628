/** Makes `vite preview`, with which `make up` serves the page, respond as nginx does in production (docker/nginx.conf). */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";
import serving from "./serving.json" with { type: "json" };

const api = new RegExp(`^(${serving.api.map((path) => path.replaceAll(".", "\\.")).join("|")})(/|$)`);

/** Applies the headers and caching rules in `serving.json` to `vite preview`. */
export function servingRules(): Plugin {
  return {
    name: "serving-rules",
    configurePreviewServer(server) {
      const folder = join(server.config.root, server.config.build.outDir);
      server.middlewares.use((request, response, next) => {
        const path = new URL(request.url ?? "/", "http://localhost").pathname;
        for (const [name, value] of Object.entries(serving.headers)) response.setHeader(name, value);
        if (api.test(path)) {
          next(); // the backend sets its own caching headers
          return;
        }
        const hashed = path.startsWith(serving.hashed);
        if (path.includes("/.") || (hashed && !existsSync(join(folder, path)))) {
          response.writeHead(404, { "Cache-Control": serving.cacheControl.rest });
          response.end();
          return;
        }
        response.setHeader("Cache-Control", hashed ? serving.cacheControl.hashed : serving.cacheControl.rest);
        next();
      });
    },
  };
}
