// Fails if the types in src/shared/api/schema.d.ts don't match the OpenAPI document beside them.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const folder = "src/shared/api";
const scratch = mkdtempSync(join(tmpdir(), "api-"));
try {
  const made = join(scratch, "schema.d.ts");
  execFileSync(
    "node_modules/.bin/openapi-typescript",
    [`${folder}/openapi.json`, "-o", made, "--root-types", "--root-types-no-schema-prefix"],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  if (readFileSync(made, "utf8") !== readFileSync(`${folder}/schema.d.ts`, "utf8")) {
    console.error(`${folder}/schema.d.ts doesn't match ${folder}/openapi.json. Regenerate it: npm run api`);
    process.exitCode = 1;
  }
} finally {
  rmSync(scratch, { recursive: true });
}
