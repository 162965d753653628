import { MantineProvider } from "@mantine/core";
import { cleanup, fireEvent, render, screen } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { parse, stringify } from "@/shared/api/exact-json";
import { InputForm } from "./InputForm";

beforeEach(() => {
  Object.defineProperty(document, "fonts", { value: new EventTarget(), configurable: true }); // happy-dom has none
});
afterEach(cleanup);

const SCHEMA = `{"type":"object","properties":{
  "big":{"type":"integer","maximum":1e20},
  "ratio":{"type":["null","number"],"default":1.0},
  "count":{"type":"integer","minimum":1,"title":"Count"},
  "nested":{"type":"object"}
}}`;

/** What is submitted from a form that starts with this input. */
function submitted(input: string, change: () => void = () => undefined): string[] {
  const sent: string[] = [];
  let value = parse(input) as Record<string, unknown>;
  const form = () => (
    <MantineProvider env="test">
      <InputForm
        inputSchema={parse(SCHEMA) as Record<string, unknown>}
        value={value}
        onChange={(next) => (value = next)}
        onSubmit={(next) => sent.push(stringify(next))}
        faults={{}}
        disabled={false}
      >
        <button type="submit">Run</button>
      </InputForm>
    </MantineProvider>
  );
  const { rerender } = render(form());
  change();
  rerender(form());
  fireEvent.click(screen.getByRole("button", { name: "Run" }));
  return sent;
}

it("submits an earlier run's numbers as they were written", () => {
  const input = '{"big":9007199254740993,"ratio":0.50,"count":3,"nested":{"a":[-0,1e400,{"b":1.0}]}}';
  expect(submitted(input)).toEqual([input]);
});

it("submits typed numbers as they were typed, and a default as the DAG has it", () => {
  const type = (name: string, text: string) =>
    fireEvent.change(screen.getByRole("textbox", { name }), { target: { value: text } });
  const sent = submitted("{}", () => {
    type("big", "9007199254740993");
    type("Count", "7");
    type("nested", '{"x": 1.10}');
  });
  expect(sent).toEqual(['{"big":9007199254740993,"ratio":1.0,"count":7,"nested":{"x":1.10}}']);
});

it("refuses what is no number, or outside of its limits", () => {
  vi.spyOn(console, "error").mockImplementation(() => undefined);
  expect(submitted('{"count":0}')).toEqual([]);
  cleanup();
  const wrong = () => fireEvent.change(screen.getByRole("textbox", { name: "Count" }), { target: { value: "seven" } });
  expect(submitted("{}", wrong)).toEqual([]);
});
