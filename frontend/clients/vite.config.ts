import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

/** One script for the tests of LangGraph's clients: `npm run build:clients -- --outDir <folder>`. */
export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  plugins: [react()],
  define: { "process.env.NODE_ENV": JSON.stringify("production"), "process.env": "{}" },
  build: {
    target: "es2022",
    emptyOutDir: false,
    lib: { entry: "chat.tsx", formats: ["es"], fileName: "chat" },
  },
});
