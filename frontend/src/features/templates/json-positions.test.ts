import { describe, expect, it } from "vitest";
import { syntaxErrorAt, keysIn, lineOf, pathAt, spanOf } from "./json-positions";

const TEXT = JSON.stringify(
  {
    dag_id: "multi_agent_workflow",
    agents: [
      { name: "seen", type: "vision" },
      { name: "a/b~c", input_data: { "x/y": { $input: "text" } }, depends_on: ["seen"] },
    ],
  },
  null,
  2,
);
const marked = (pointer: string) => {
  const { from, to } = spanOf(TEXT, pointer);
  return TEXT.slice(from, to);
};

describe("from a pointer to its position", () => {
  it.each([
    ["/dag_id", '"dag_id": "multi_agent_workflow"', 2],
    ["/agents", '"agents"', 3],
    ["/agents/1", "{", 8],
    ["/agents/0/type", '"type": "vision"', 6],
    ["/agents/1/input_data/x~1y", '"x/y"', 11],
    ["/agents/1/depends_on/0", '"seen"', 16],
  ])("%s", (pointer, text, line) => {
    expect(marked(pointer)).toBe(text);
    expect(lineOf(TEXT, spanOf(TEXT, pointer).from)).toBe(line);
  });

  it("marks the object that lacks a key", () => {
    expect(lineOf(TEXT, spanOf(TEXT, "/agents/0/graph").from)).toBe(4);
    expect(lineOf(TEXT, spanOf(TEXT, "/agents/7/name").from)).toBe(3);
    expect(spanOf(TEXT, "")).toEqual({ from: 0, to: 1 });
    expect(spanOf("", "/agents")).toEqual({ from: 0, to: 0 });
  });

  it("works in a text that isn't valid JSON yet", () => {
    const broken = '{\n  "a": ,\n  "b": { "c": 1 }\n}';
    expect(lineOf(broken, spanOf(broken, "/b/c").from)).toBe(3);
    expect(lineOf(broken, syntaxErrorAt(broken) ?? 0)).toBe(2);
    expect(syntaxErrorAt(TEXT)).toBeNull();
  });
});

describe("from a position to its path", () => {
  /** The path at the bar. */
  const at = (text: string) => pathAt(text.replace("|", ""), text.indexOf("|"));

  it.each([
    ['{"agents": [{"name": "a", |}]}', ["agents", 0], true],
    ['{"agents": [{"name": "a"}, {"ty|"}]}', ["agents", 1], true],
    ['{"agents": [{"type": "vi|"}]}', ["agents", 0, "type"], false],
    ['{"orchestration_mode": |}', ["orchestration_mode"], false],
    ['{"agents": [{"depends_on": [|]}]}', ["agents", 0, "depends_on", 0], false],
    ['{"agents": [{"depends_on": ["|"]}]}', ["agents", 0, "depends_on", 0], false],
    ["{|}", [], true],
  ])("%s", (text, path, key) => expect(at(text)).toEqual({ path, key }));

  it("knows the existing keys", () => {
    expect(keysIn(TEXT, ["agents", 1])).toEqual(["name", "input_data", "depends_on"]);
    expect(keysIn(TEXT, ["agents", 9])).toEqual([]);
  });
});
