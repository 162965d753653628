import { describe, expect, it } from "vitest";
import { askedFor } from "@/shared/api/templates";
import type { Definition } from "./definition";
import { teamOf } from "./team-layout";

const agents = (...names: string[]) => names.map((name) => ({ name, type: "text" }));
const links = (definition: Definition) => {
  const { members, links: found } = teamOf(definition);
  const name = (id: string) => members.find((member) => member.id === id)?.name ?? "?";
  return found.map((link) => `${name(link.from)}>${name(link.to)}`).sort();
};
const columns = (definition: Definition) =>
  Object.fromEntries(teamOf(definition).members.map((member) => [member.name, member.column]));

describe("who gets whose results", () => {
  it("in parallel: only the summary", () => {
    expect(links({ agents: agents("a", "b") })).toEqual(["a>Summary", "b>Summary"]);
    expect(links({ agents: agents("a", "b"), synthesis: false })).toEqual([]);
  });

  it("in sequence", () => {
    const definition = { agents: agents("a", "b", "c"), orchestration_mode: "sequential" };
    expect(links(definition)).toEqual(["a>b", "b>c", "c>Summary"]);
    expect(columns(definition)).toEqual({ a: 0, b: 1, c: 2, Summary: 3 });
  });

  it("by dependencies", () => {
    const definition = {
      orchestration_mode: "graph",
      agents: [{ name: "last", depends_on: ["a", "mid"] }, { name: "a" }, { name: "mid", depends_on: ["a", "nobody"] }],
    };
    expect(links(definition)).toEqual(["a>last", "a>mid", "last>Summary", "mid>last"]);
    expect(columns(definition)).toEqual({ a: 0, mid: 1, last: 2, Summary: 3 });
  });

  it("with a supervisor", () => {
    const definition = { agents: agents("a", "b"), orchestration_mode: "supervisor" };
    expect(columns(definition)).toEqual({ Supervisor: 0, a: 1, b: 1, Summary: 2 });
    expect(links(definition)).toContain("Supervisor>a");
  });

  it("terminates for a cycle", () => {
    const circle = {
      orchestration_mode: "graph",
      agents: [
        { name: "a", depends_on: ["b"] },
        { name: "b", depends_on: ["a"] },
      ],
    };
    expect(teamOf(circle).members).toHaveLength(3);
  });
});

it("finds the fields that a run must provide", () => {
  const definition = {
    agents: [
      { name: "a", input_data: { text: { $input: "contract" }, deep: [{ more: { $input: "order" } }] } },
      { name: "b", input_data: { text: { $input: "contract" }, not: { $input: "x", and: 1 } } },
    ],
  };
  expect(askedFor(definition)).toEqual(["contract", "order"]);
});
