import {
  autocompletion,
  closeBrackets,
  closeBracketsKeymap,
  type CompletionContext,
  completionKeymap,
  type CompletionResult,
  snippetCompletion,
} from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { json } from "@codemirror/lang-json";
import { bracketMatching, HighlightStyle, indentOnInput, syntaxHighlighting, syntaxTree } from "@codemirror/language";
import { type Diagnostic, lintGutter, lintKeymap } from "@codemirror/lint";
import { EditorState, type Extension } from "@codemirror/state";
import {
  drawSelection,
  EditorView,
  highlightActiveLine,
  highlightActiveLineGutter,
  hoverTooltip,
  keymap,
  lineNumbers,
} from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { keysIn, pathAt, type Span, spanOf } from "./json-positions";
import { type Fault, type Key, keysAt, type Path, type Schema, valuesAt } from "./json-schema";

/** The editor's extensions: highlighting, indentation, help from a schema. */
export function setup(schema: () => Schema, label: string): Extension {
  return [
    lineNumbers(),
    highlightActiveLineGutter(),
    history(),
    drawSelection(),
    indentOnInput(),
    bracketMatching(),
    closeBrackets(),
    highlightActiveLine(),
    lintGutter(),
    json(),
    syntaxHighlighting(colours),
    autocompletion({ override: [(context) => complete(context, schema())], icons: false }),
    hoverTooltip((view, position) => hover(view, position, schema())),
    EditorView.lineWrapping,
    EditorState.tabSize.of(2),
    EditorView.contentAttributes.of({ "aria-label": label, spellcheck: "false" }),
    // Tab moves to the next field, as in every form; Ctrl-] indents.
    keymap.of([...closeBracketsKeymap, ...defaultKeymap, ...historyKeymap, ...completionKeymap, ...lintKeymap]),
    look,
  ];
}

/** Shows errors in place. */
export function diagnosticsOf(text: string, faults: readonly Fault[]): Diagnostic[] {
  return faults.map((fault) => ({
    ...placeOf(text, fault),
    severity: "error" as const,
    message: `${fault.pointer.split("/").at(-1) ?? ""} ${fault.detail}`.trim(),
  }));
}

/** The range of an error in a text. */
export function placeOf(text: string, { pointer, position }: Fault): Span {
  if (position === undefined) return spanOf(text, pointer);
  const from = Math.min(position, Math.max(0, text.length - 1));
  return { from, to: Math.min(from + 1, text.length) };
}

function complete(context: CompletionContext, schema: Schema): CompletionResult | null {
  const text = context.state.doc.toString();
  const tree = syntaxTree(context.state);
  const { path, key } = pathAt(text, context.pos, tree);
  const node = tree.resolveInner(context.pos, -1);
  const inText = node.name === "PropertyName" || node.name === "String";
  if (!inText && !context.explicit && !/[\w"]$/.test(text.slice(0, context.pos))) return null;
  const from = inText ? node.from : (context.matchBefore(/[\w.$-]+/)?.from ?? context.pos);
  const to = inText ? node.to : context.pos;
  if (key) {
    const there = keysIn(text, path, tree);
    const typed = inText ? text.slice(node.from + 1, node.to - 1) : "";
    const followed = /^\s*:/.test(text.slice(to));
    const options = keysAt(schema, path)
      .filter(({ name }) => name === typed || !there.includes(name))
      .map((one) =>
        snippetCompletion(followed ? `"${one.name}"` : `"${one.name}": ${beginning(one)}`, {
          label: `"${one.name}"`,
          detail: one.required ? `${one.type}, required` : one.type,
          info: one.description,
          boost: one.required ? 1 : 0,
        }),
      );
    return options.length > 0 ? { from, to, options } : null;
  }
  const options = [...valuesAt(schema, path), ...agentNames(text, path)].map((value) => ({
    label: JSON.stringify(value),
  }));
  return options.length > 0 ? { from, to, options } : null;
}

/** The agents that an agent can depend on. */
function agentNames(text: string, path: Path): string[] {
  if (path[0] !== "agents" || path[2] !== "depends_on") return [];
  try {
    const { agents } = JSON.parse(text) as { agents?: { name?: unknown }[] };
    return (agents ?? []).flatMap(({ name }, index) => (typeof name === "string" && index !== path[1] ? [name] : []));
  } catch {
    return [];
  }
}

function beginning({ type }: Key): string {
  if (type.startsWith('"') || type.startsWith("text")) return '"${}"';
  if (type.startsWith("list")) return "[${}]";
  if (type.startsWith("object")) return "{${}}";
  return "${}";
}

function hover(view: EditorView, position: number, schema: Schema) {
  const text = view.state.doc.toString();
  const node = syntaxTree(view.state).resolveInner(position, 1);
  if (node.name !== "PropertyName") return null;
  const { path } = pathAt(text, node.to, syntaxTree(view.state));
  const name = text.slice(node.from + 1, node.to - 1);
  const known = keysAt(schema, path).find((one) => one.name === name);
  if (!known?.description) return null;
  return {
    pos: node.from,
    end: node.to,
    create: () => {
      const dom = document.createElement("div");
      dom.textContent = known.description;
      return { dom };
    },
  };
}

const colours = HighlightStyle.define([
  { tag: tags.propertyName, color: "var(--state-live)" },
  { tag: tags.string, color: "var(--state-good)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--state-off)" },
  { tag: [tags.brace, tags.squareBracket, tags.separator], color: "var(--mantine-color-dimmed)" },
]);

const look = EditorView.theme({
  "&": { height: "100%", fontSize: "var(--mantine-font-size-sm)", color: "var(--mantine-color-text)" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mantine-font-family-monospace)", lineHeight: "1.6" },
  ".cm-content": { caretColor: "var(--mantine-color-text)", padding: "10px 0" },
  ".cm-cursor": { borderLeftColor: "var(--mantine-color-text)" },
  ".cm-gutters": {
    backgroundColor: "var(--flow-sunken)",
    color: "var(--mantine-color-dimmed)",
    borderRight: "1px solid var(--flow-line)",
  },
  ".cm-activeLine, .cm-activeLineGutter": {
    backgroundColor: "color-mix(in srgb, var(--state-live) 7%, transparent)",
  },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    backgroundColor: "color-mix(in srgb, var(--state-live) 28%, transparent)",
  },
  "&.cm-focused .cm-matchingBracket": { backgroundColor: "color-mix(in srgb, var(--state-live) 25%, transparent)" },
  ".cm-tooltip": {
    maxWidth: "420px",
    border: "1px solid var(--flow-line)",
    borderRadius: "var(--mantine-radius-md)",
    backgroundColor: "var(--flow-surface)",
    color: "var(--mantine-color-text)",
    boxShadow: "var(--mantine-shadow-md)",
    fontFamily: "var(--mantine-font-family)",
  },
  ".cm-tooltip-hover, .cm-tooltip.cm-completionInfo": { padding: "8px 11px" },
  ".cm-tooltip-autocomplete > ul": { fontFamily: "var(--mantine-font-family-monospace)" },
  ".cm-tooltip-autocomplete > ul > li[aria-selected]": {
    backgroundColor: "var(--state-live-soft)",
    color: "var(--state-live)",
  },
  ".cm-completionDetail": { color: "var(--mantine-color-dimmed)", fontStyle: "normal" },
  ".cm-diagnostic-error": { borderLeftColor: "var(--state-bad)" },
  ".cm-lintRange-error": {
    backgroundImage: "none",
    textDecoration: "underline wavy var(--state-bad)",
    textUnderlineOffset: "3px",
  },
});
