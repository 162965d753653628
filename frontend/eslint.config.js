import js from "@eslint/js";
import prettier from "eslint-config-prettier";
import { createTypeScriptImportResolver } from "eslint-import-resolver-typescript";
import { importX } from "eslint-plugin-import-x";
import a11y from "eslint-plugin-jsx-a11y";
import hooks from "eslint-plugin-react-hooks";
import { defineConfig } from "eslint/config";
import globals from "globals";
import ts from "typescript-eslint";

/** Imports run one way, app → features → shared, and features don't import each other. */
const features = ["auth", "start-run", "runs", "run-detail", "inbox", "dashboard", "templates", "settings", "audit"];
const zones = [
  { target: "./src/shared", from: ["./src/features", "./src/app"], message: "shared must not import features or app" },
  { target: "./src/features", from: "./src/app", message: "features must not import the app" },
  ...features.map((name) => ({
    target: `./src/features/${name}`,
    from: "./src/features",
    except: [`./${name}`],
    message: "code that two features need belongs in shared",
  })),
];

export default defineConfig(
  { ignores: ["dist", "src/shared/api/schema.d.ts"] },
  js.configs.recommended,
  {
    files: ["**/*.{ts,tsx}"],
    extends: [
      ts.configs.strictTypeChecked,
      ts.configs.stylisticTypeChecked,
      importX.flatConfigs.typescript,
      a11y.flatConfigs.strict,
      hooks.configs.flat.recommended,
    ],
    plugins: { "import-x": importX },
    languageOptions: {
      globals: globals.browser,
      parserOptions: { project: ["./tsconfig.json", "./tsconfig.node.json"], tsconfigRootDir: import.meta.dirname },
    },
    settings: { "import-x/resolver-next": [createTypeScriptImportResolver({ project: "./tsconfig.json" })] },
    rules: {
      "import-x/no-restricted-paths": ["error", { basePath: import.meta.dirname, zones }],
      "import-x/no-cycle": "error",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      "@typescript-eslint/consistent-type-imports": "error",
      // A scrollable box must be reachable by keyboard.
      "jsx-a11y/no-noninteractive-tabindex": ["error", { tags: ["pre"], roles: ["log", "tabpanel"] }],
      // The router throws redirects.
      "@typescript-eslint/only-throw-error": "off",
      "@typescript-eslint/consistent-type-definitions": "off",
    },
  },
  { files: ["public/**"], languageOptions: { globals: globals.browser } },
  { files: ["scripts/**", "*.config.js"], languageOptions: { globals: globals.node } },
  prettier,
);
