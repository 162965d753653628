import { QueryClient } from "@tanstack/react-query";
import { afterEach, expect, it, vi } from "vitest";
import { stringify } from "./exact-json";
import type { ApiProblem } from "./problem";
import { inputQuery } from "./workflows";

const read = (response: Response) => {
  const asked = vi.spyOn(globalThis, "fetch").mockResolvedValue(response);
  const client = new QueryClient({ defaultOptions: { queries: { retry: false } } });
  return { asked, input: client.query(inputQuery("some dag", "run/1")) };
};

afterEach(() => vi.restoreAllMocks());

it("reads the input of a run as it was given, without the system's own additions", async () => {
  const given = '{"number":9007199254740993,"text":"' + "x".repeat(2_000_000) + '"}';
  const { asked, input } = read(new Response(given.slice(0, -1) + ',"_visual_ai":{"user_id":"anna"}}'));
  expect(stringify(await input)).toBe(given);
  expect(asked.mock.calls[0]?.[0]).toBe("/workflow-status/some%20dag/run%2F1/input");
});

it("throws the problem of a run that can't be read", async () => {
  const problem = { title: "Not found", detail: "There is no such run." };
  const { input } = read(new Response(JSON.stringify(problem), { status: 404 }));
  await expect(input).rejects.toMatchObject({
    status: 404,
    detail: "There is no such run.",
  } satisfies Partial<ApiProblem>);
});
