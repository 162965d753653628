import { describe, expect, it } from "vitest";
import { referenceParts, templateSchema } from "./template-form";

const INPUT = {
  type: "object",
  required: ["image_url", "query"],
  properties: {
    query: { type: "string" },
    image_url: { type: "string" },
    agents: { type: "array" },
    orchestration_mode: { type: "string", default: "parallel" },
  },
};

describe("the input of a template's run", () => {
  it("leaves out the agents, and doesn't require what the template provides", () => {
    const schema = templateSchema(INPUT, { agents: [], input_data: { query: "What is it?" } });
    expect(Object.keys(schema.properties as object)).toEqual(["query", "image_url"]);
    expect(schema.required).toEqual(["image_url"]);
  });

  it("asks for what the agents need", () => {
    const agents = [
      { name: "a", input_data: { text: { $input: "contract" } } },
      { name: "b", input_data: { text: [{ $input: "query" }, { $input: "order" }] } },
    ];
    const schema = templateSchema(INPUT, { agents, input_data: { order: "12" } });
    expect(Object.keys(schema.properties as object)).toEqual(["query", "image_url", "contract", "order"]);
    expect(schema.required).toEqual(["image_url", "query", "contract"]);
  });
});

it.each([
  ["contract-check", { name: "contract-check", version: null }],
  ["contract-check@12", { name: "contract-check", version: 12 }],
  ["contract-check@x", { name: "contract-check", version: null }],
])("reads %s", (reference, parts) => expect(referenceParts(reference)).toEqual(parts));
