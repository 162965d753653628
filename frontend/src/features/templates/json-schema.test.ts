import { describe, expect, it } from "vitest";
import { inDefinition, readDraft } from "./draft";
import { faultsOf, keysAt, valuesAt } from "./json-schema";

/** As Pydantic writes it. */
const SCHEMA = {
  type: "object",
  additionalProperties: false,
  required: ["dag_id"],
  properties: {
    dag_id: { type: "string", description: "The DAG" },
    orchestration_mode: {
      anyOf: [{ type: "string", enum: ["parallel", "graph"] }, { type: "null" }],
      description: "How",
    },
    agents: { anyOf: [{ type: "array", items: { $ref: "#/$defs/Agent" } }, { type: "null" }] },
    synthesis: { anyOf: [{ type: "boolean" }, { $ref: "#/$defs/Setup" }, { type: "null" }] },
    input_data: { anyOf: [{ type: "object", additionalProperties: true }, { type: "null" }] },
    budget: { anyOf: [{ $ref: "#/$defs/Setup" }, { type: "null" }], description: "Its own words" },
  },
  $defs: {
    Agent: {
      type: "object",
      additionalProperties: false,
      required: ["name"],
      properties: { name: { type: "string" }, max_tokens: { type: "integer" }, temperature: { type: "number" } },
    },
    Setup: {
      type: "object",
      description: "The setup's words",
      additionalProperties: false,
      properties: { model: { type: "string" } },
    },
  },
};

describe("validation without the server", () => {
  it("accepts valid definitions", () => {
    const fits = {
      dag_id: "d",
      orchestration_mode: null,
      agents: [{ name: "a", max_tokens: 5, temperature: 1 }],
      synthesis: false,
      input_data: { any: ["thing"] },
    };
    expect(faultsOf(SCHEMA, fits)).toEqual([]);
    expect(faultsOf(SCHEMA, { dag_id: "d", synthesis: { model: "m" } })).toEqual([]);
  });

  it.each([
    [{}, "/dag_id", "is missing"],
    [{ dag_id: 5 }, "/dag_id", "is a whole number; it must be a text"],
    [{ dag_id: "d", agent: [] }, "/agent", "isn't allowed here; the keys are dag_id, "],
    [{ dag_id: "d", orchestration_mode: "fast" }, "/orchestration_mode", `isn't one of "parallel", "graph"`],
    [{ dag_id: "d", agents: [{ name: "a" }, {}] }, "/agents/1/name", "is missing"],
    [
      { dag_id: "d", agents: [{ name: "a", max_tokens: 1.5 }] },
      "/agents/0/max_tokens",
      "is a number; it must be a whole",
    ],
    [{ dag_id: "d", agents: {} }, "/agents", "is an object; it must be a list"],
    [{ dag_id: "d", synthesis: { modle: "m" } }, "/synthesis/modle", "isn't allowed here"],
    [{ dag_id: "d", synthesis: 3 }, "/synthesis", "it must be true or false or an object"],
  ])("%j: %s", (value, pointer, detail) => {
    const faults = faultsOf(SCHEMA, value);
    expect(faults).toHaveLength(1);
    expect(faults[0]?.pointer).toBe(pointer);
    expect(faults[0]?.detail).toContain(detail);
  });
});

describe("help", () => {
  it("lists the keys of a place", () => {
    expect(keysAt(SCHEMA, ["agents", 3]).map((key) => key.name)).toEqual(["name", "max_tokens", "temperature"]);
    expect(keysAt(SCHEMA, []).find((key) => key.name === "dag_id")).toMatchObject({ required: true, type: "text" });
    expect(keysAt(SCHEMA, []).find((key) => key.name === "budget")?.description).toBe("Its own words");
    expect(keysAt(SCHEMA, ["input_data", "anything"])).toEqual([]);
  });

  it("lists the values of a place", () => {
    expect(valuesAt(SCHEMA, ["orchestration_mode"])).toEqual(["parallel", "graph"]);
    expect(valuesAt(SCHEMA, ["synthesis"])).toEqual([true, false]);
    expect(valuesAt(SCHEMA, ["dag_id"])).toEqual([]);
  });
});

describe("a draft", () => {
  it("reports the position of invalid JSON", () => {
    const draft = readDraft('{\n  "dag_id": \n}', SCHEMA);
    expect(draft.definition).toBeNull();
    expect(draft.faults[0]?.detail).toContain("This isn't valid JSON");
    expect(draft.faults[0]?.position).toBeGreaterThan(10);
    expect(readDraft("[]", SCHEMA).faults[0]?.detail).toContain("must be an object");
  });

  it("uses the server's pointers into the definition and ignores others", () => {
    const faults = [
      { pointer: "/definition/agents/0/type", detail: "is none" },
      { pointer: "/definition", detail: "is too large" },
      { pointer: "/name", detail: "is taken" },
      { pointer: "/definitions", detail: "?" },
    ];
    expect(inDefinition(faults)).toEqual([
      { pointer: "/agents/0/type", detail: "is none" },
      { pointer: "", detail: "is too large" },
    ]);
  });
});
