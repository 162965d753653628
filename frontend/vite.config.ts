import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";
import { proxyTo } from "./proxy.ts";
import { servingRules } from "./serving.ts";

const backend = process.env.VISUAL_AI_BACKEND_URL ?? `http://127.0.0.1:${process.env.VISUAL_AI_BACKEND_PORT ?? "8000"}`;
const port = Number(process.env.VISUAL_AI_FRONTEND_PORT ?? "3000");

/** Resolves a path in `src`. */
const source = (path: string) => fileURLToPath(new URL(`./src/${path}`, import.meta.url));

export default defineConfig({
  plugins: [react(), servingRules()],
  resolve: {
    alias: {
      "@rjsf/validator-ajv8": source("shared/form/no-ajv.ts"),
      "@": source("."),
    },
  },
  server: { port, strictPort: true, proxy: proxyTo(backend) },
  preview: { port, strictPort: true, proxy: proxyTo(backend) },
  build: {
    target: "es2022",
    manifest: true,
    // The content security policy allows no fonts or scripts in `data:` URLs.
    assetsInlineLimit: 0,
  },
  test: {
    environment: "happy-dom",
    include: ["src/**/*.test.{ts,tsx}"],
    restoreMocks: true,
    // Its imports lack file extensions, which Node.js doesn't accept.
    server: { deps: { inline: [/@rjsf/] } },
  },
});
