import { describe, expect, it } from "vitest";
import { parse, stringify } from "../api/exact-json";
import type { QuestionOut } from "../api/schema";
import { answerForm } from "./answer-schema";
import {
  approvalBody,
  asJsonValue,
  draftOf,
  optionsOf,
  partsOf,
  picturesIn,
  readsLikeYesOrNo,
  toolCalls,
} from "./asks";
import { messagesIn } from "./messages";

const question = (given: Partial<QuestionOut>) =>
  ({ kind: "question", subject: "", content: null, schema: null, ...given }) as QuestionOut;

const ACTIONS = {
  action_requests: [
    { name: "send", args: { to: "ann" }, description: "Careful.\n\nTool: send\nArgs: {'to': 'ann'}" },
    { name: "pay", args: {} },
  ],
  review_configs: [
    { action_name: "send", allowed_decisions: ["approve", "respond", "unknown"] },
    { action_name: "pay" },
  ],
};

describe("an approval", () => {
  it("lists its calls with the decisions that each allows", () => {
    expect(toolCalls(question({ kind: "approval", content: ACTIONS }))).toEqual({
      single: false,
      calls: [
        { name: "send", args: { to: "ann" }, description: "Careful.", allows: ["approve", "respond"] },
        { name: "pay", args: {}, description: "", allows: ["approve", "edit", "reject"] },
      ],
    });
    expect(toolCalls(question({ content: ACTIONS }))).toBeNull();
  });

  it("of a single call takes the decisions in its schema", () => {
    const content = { type: "tool_approval", name: "send", args: { to: "ann" }, description: "" };
    const decision = (type: string) => ({ properties: { type: { const: type } } });
    const schema = { oneOf: [{ $ref: "#/$defs/A" }, decision("reject")], $defs: { A: decision("approve") } };
    expect(toolCalls(question({ kind: "approval", content, schema }))).toMatchObject({
      single: true,
      calls: [{ name: "send", allows: ["approve", "reject"] }],
    });
    const only = toolCalls(question({ kind: "approval", content, schema: decision("respond") }));
    expect(only?.calls[0]?.allows).toEqual(["respond"]);
  });

  it("is answered by a plain decision, if it is the same for all calls", () => {
    expect(approvalBody([{ type: "approve" }, { type: "approve" }], false)).toEqual({ decision: "approve" });
    const mixed = [{ type: "approve" as const }, { type: "reject" as const, message: "No." }];
    expect(approvalBody(mixed, false)).toEqual({ answer: { decisions: mixed } });
    expect(approvalBody([{ type: "respond", message: "Ann." }], true)).toEqual({
      answer: { type: "respond", message: "Ann." },
    });
  });
});

describe("what a question shows", () => {
  it("leaves out its subject, and the schema of its answer", () => {
    const content = { task: "Review  this", draft: "A draft.", schema: { type: "string" } };
    expect(partsOf(question({ subject: "Review this", content }))).toEqual([{ name: "draft", value: "A draft." }]);
    expect(draftOf(question({ subject: "Review this", content }))).toBe("A draft.");
    expect(partsOf(question({ subject: "Who?", content: "Who?" }))).toEqual([]);
  });

  it("finds pictures with their regions", () => {
    const content = {
      pages: [{ image_url: "https://example.com/1", box: [1, 2, 3, 4] }, "https://example.com/2.png?x=1"],
      link: "https://example.com/article",
      upload: "upload://abc",
    };
    expect(picturesIn(content)).toEqual([
      { url: "https://example.com/1", box: [1, 2, 3, 4] },
      { url: "https://example.com/2.png?x=1", box: null },
      { url: "upload://abc", box: null },
    ]);
  });

  it("offers the graph's options, and yes or no", () => {
    expect(optionsOf(question({ content: { options: ["a", "b"] } }))).toEqual(["a", "b"]);
    expect(optionsOf(question({ content: { options: ["a", 1] } }))).toEqual([]);
    expect(readsLikeYesOrNo(question({ subject: "Do you approve this action?" }))).toBe(true);
    expect(readsLikeYesOrNo(question({ subject: "What is your age?" }))).toBe(false);
  });

  it("finds the messages of a state", () => {
    const state = {
      messages: [
        { type: "human", content: "Write to Ann." },
        { type: "ai", content: [{ type: "text", text: "Yes." }], tool_calls: [{ name: "send", args: { to: "ann" } }] },
        ["user", "Go on."],
      ],
    };
    expect(messagesIn(state)).toEqual([
      { role: "human", name: null, text: "Write to Ann.", calls: [] },
      { role: "ai", name: null, text: "Yes.", calls: ['send({"to":"ann"})'] },
      { role: "human", name: null, text: "Go on.", calls: [] },
    ]);
    expect(messagesIn("nothing")).toEqual([]);
  });
});

it.each([
  ["42", "42"],
  ["1.0", "1.0"],
  ["true", "true"],
  ['{"a": 1}', '{"a":1}'],
  ["42 years", null],
  ["truely", null],
  ["", null],
])("says that %j may be meant as JSON", (text, json) => {
  const meant = asJsonValue(text);
  expect(meant && stringify(meant.value)).toBe(json);
});

describe("the form for an answer's schema", () => {
  it("has the fields of an object, without references", () => {
    const schema = {
      properties: {
        cabin: { $ref: "#/$defs/Cabin", title: "Cabin" },
        note: { anyOf: [{ type: "string" }, { type: "null" }], default: null },
      },
      $defs: { Cabin: { type: "string", enum: ["a", "b"] } },
    };
    expect(answerForm(schema)).toEqual({
      wrapped: false,
      input: {
        type: "object",
        properties: { cabin: { type: "string", enum: ["a", "b"], title: "Cabin" }, note: { type: "string" } },
      },
    });
  });

  it("begins with what is required, in its order", () => {
    const schema = { properties: { note: {}, cabin: {}, seats: {} }, required: ["seats", "cabin", "gone"] };
    expect(Object.keys(answerForm(schema)?.input.properties as object)).toEqual(["seats", "cabin", "note"]);
  });

  it("has one field for a plain value", () => {
    expect(answerForm({ type: "boolean" })).toMatchObject({ wrapped: true, input: { required: ["answer"] } });
  });

  it("lets one of several forms be chosen by its name", () => {
    const approve = { properties: { type: { const: "approve" } } };
    const schema = {
      oneOf: [{ $ref: "#/$defs/Edit" }, approve, { type: "string" }],
      $defs: { Edit: { title: "Edit it", properties: { text: { type: "string" } } } },
    };
    const form = answerForm(schema);
    expect(form?.wrapped).toBe(true);
    expect(form?.input.properties).toMatchObject({
      answer: { oneOf: [{ title: "Edit it" }, { title: "approve", ...approve }, { title: "string" }] },
    });
    expect(answerForm({ anyOf: schema.oneOf.slice(1) })?.wrapped).toBe(true);
  });

  it("is JSON for what has no form, or no end", () => {
    expect(answerForm({ oneOf: [{ type: "array" }, { type: "number" }] })).toBeNull();
    expect(answerForm({ type: "array", items: {} })).toBeNull();
    const endless = { $ref: "#/$defs/Node", $defs: { Node: { properties: { next: { $ref: "#/$defs/Node" } } } } };
    expect(answerForm(endless)?.wrapped).toBe(false);
  });

  it("keeps numbers as they were written", () => {
    const schema = parse('{"type":"number","default":1.0}') as Record<string, unknown>;
    expect(stringify(answerForm(schema)?.input)).toContain('"default":1.0');
  });
});
