import { createSchemaUtils } from "@rjsf/utils";
import { describe, expect, it } from "vitest";
import { formOf } from "./form-schema";
import { atTheirFields } from "./server-faults";
import { validator } from "./validator";

/** Much like that of `multi_agent_workflow`. */
const INPUT = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  type: "object",
  properties: {
    query: { type: ["null", "string"], maxLength: 20_000, title: "Question" },
    image_url: { type: "string", minLength: 1, title: "Picture" },
    agents: { type: ["null", "array"], items: { type: "object", required: ["name", "type"] } },
    mode: { type: "string", enum: ["parallel", "graph"], default: "parallel" },
    count: { type: ["null", "integer"], default: null },
  },
  required: ["image_url"],
};

describe("the form for a DAG's input", () => {
  const { schema, uiSchema } = formOf(INPUT);

  it("leaves null for empty fields", () => {
    expect(schema.properties?.query).toMatchObject({ type: "string" });
    expect(schema.properties?.count).toEqual({ type: "integer" });
    expect(schema.required).toEqual(["image_url"]);
  });

  it("gives each type of value its widget", () => {
    expect(uiSchema).toMatchObject({
      query: { "ui:widget": "textarea" },
      image_url: { "ui:widget": "picture" },
      agents: { "ui:field": "json" },
    });
    expect(uiSchema.mode).toBeUndefined();
  });

  it("starts with the defaults", () => {
    const utils = createSchemaUtils(validator, schema);
    expect(utils.getDefaultFormState(schema, {})).toMatchObject({ mode: "parallel" });
  });
});

describe("validation before sending", () => {
  const { schema } = formOf(INPUT);
  const faults = (value: unknown) =>
    validator.validateFormData(value, schema).errors.map(({ property, message }) => [property, message]);

  it("finds what the backend would reject", () => {
    expect(faults({ image_url: "sample://invoice", mode: "graph" })).toEqual([]);
    expect(faults({})).toEqual([[".image_url", "This is required."]]);
    expect(faults({ image_url: "x", mode: "chaos" }).map(([property]) => property)).toEqual([".mode"]);
    expect(faults({ image_url: "x", agents: [{ name: "a" }] })).toEqual([[".agents.0.type", "This is required."]]);
  });

  it("needs no code compiled from schemas", () => {
    const { Function: before } = globalThis;
    globalThis.Function = (() => {
      throw new EvalError("the policy forbids this");
    }) as unknown as FunctionConstructor;
    try {
      expect(faults({ image_url: 5 }).map(([property]) => property)).toEqual([".image_url"]);
    } finally {
      globalThis.Function = before;
    }
  });
});

describe("an error from the backend", () => {
  it("is shown at its field", () => {
    const faults = [
      { pointer: "/input_data/image_url", detail: "is required" },
      { pointer: "/input_data/agents/0/a~1b", detail: "is too long" },
      { pointer: "/model", detail: "is unknown" },
    ];
    expect(atTheirFields(faults, "/input_data")).toEqual({
      image_url: { __errors: ["Is required"] },
      agents: { 0: { "a/b": { __errors: ["Is too long"] } } },
    });
  });
});
