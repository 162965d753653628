// Fails if a first visit would load more compressed script than the budget allows: the entry with its static imports,
// and the largest page that a visit can start with.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const BUDGET = 300 * 1024;
/** Pages that a visit can start with; what they load lazily doesn't count. */
const FIRST_PAGES = [
  "src/features/auth/SignInPage.tsx",
  "src/features/runs/RunsPage.tsx",
  "src/features/inbox/QuestionPage.tsx",
];

const manifest = JSON.parse(readFileSync("dist/.vite/manifest.json", "utf8"));

/** The files of a chunk and of its static imports. */
function reach(key, found = new Set()) {
  const chunk = manifest[key];
  if (!chunk) throw new Error(`${key} is not in the build; update the page's file name in scripts/check-size.mjs`);
  if (found.has(chunk.file)) return found;
  found.add(chunk.file);
  for (const imported of chunk.imports ?? []) reach(imported, found);
  return found;
}

const size = (file) => gzipSync(readFileSync(`dist/${file}`)).length;
const entry = Object.keys(manifest).find((key) => manifest[key].isEntry);
const shown = (bytes) => `${(bytes / 1024).toFixed(0)} KiB`;

for (const page of FIRST_PAGES) {
  const files = reach(page, reach(entry));
  const total = [...files].filter((file) => file.endsWith(".js")).reduce((sum, file) => sum + size(file), 0);
  console.log(`${page}: ${shown(total)} of compressed script; the budget is ${shown(BUDGET)}`);
  if (total > BUDGET) {
    for (const file of [...files].sort((a, b) => size(b) - size(a)).slice(0, 8)) {
      console.error(`  ${shown(size(file))}  ${file}`);
    }
    process.exitCode = 1;
  }
}
