import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { cleanup, fireEvent, render, screen } from "@testing-library/react";
import { Suspense } from "react";
import { afterEach, expect, it, vi } from "vitest";
import type { SnapshotOut } from "@/shared/api/schema";
import type { RunModel } from "@/shared/stream/run-model";
import { StatesPanel } from "./StatesPanel";

const me = { user_id: "ulla", role: "User", expires_at: null, may_trigger: true, sees_all: false, service_token: null };
const state = {
  checkpoint_id: "1f1",
  parent_checkpoint_id: "1f0",
  agent: "essay",
  item: null,
  call: 1,
  namespace: "",
  step: 1,
  source: "loop",
  created_at: "2026-03-01T12:00:00Z",
  nodes: ["plan"],
  next: ["write"],
  asks: false,
  bytes: 300,
  url: "/x",
};
const input = {
  ...state,
  checkpoint_id: "1f0",
  parent_checkpoint_id: null,
  source: "input",
  nodes: [],
  next: ["__start__"],
};
const agent = { name: "essay", tryNumber: 1, batch: null };
const task = {
  key: "task",
  taskId: "task",
  mapIndex: -1,
  tries: [{ number: 1 }],
  agents: [agent],
};
const model = { tasks: new Map([["task", task]]) } as unknown as RunModel;
const run = { dag_id: "essays", dag_run_id: "r1", input_data: {} } as unknown as SnapshotOut;

afterEach(() => {
  cleanup();
  vi.restoreAllMocks();
});

function show(list: object) {
  vi.spyOn(globalThis, "fetch").mockImplementation((request) => {
    const { pathname } = new URL((request as Request).url);
    if (pathname === "/users/me") return Promise.resolve(Response.json(me));
    if (pathname.endsWith("/checkpoints/1f1")) {
      return Promise.resolve(Response.json({ ...state, values: { outline: "<b>Sails</b>" } }));
    }
    return Promise.resolve(Response.json(list));
  });
  render(
    <MantineProvider env="test">
      <QueryClientProvider client={new QueryClient()}>
        <Suspense fallback={null}>
          <StatesPanel run={run} model={model} />
        </Suspense>
      </QueryClientProvider>
    </MantineProvider>,
  );
}

it("lists states, shows one, and offers to fork from it", async () => {
  show({ checkpoints: [state, input], next_cursor: null, note: null });
  const row = await screen.findByRole("button", { name: /^plan/ }, { timeout: 10_000 });
  expect(row.textContent).toContain("next: write");
  expect(screen.getByText("Input")).toBeDefined();
  expect(screen.getByRole("button", { name: "Fork from here: plan" })).toBeDefined();
  fireEvent.click(row);
  expect((await screen.findByLabelText("JSON of the state", {}, { timeout: 10_000 })).textContent).toContain(
    "<b>Sails</b>",
  );
}, 30_000);

it("says why there are none", async () => {
  show({ checkpoints: [], next_cursor: null, note: "The task has none any more: its checkpoints are deleted." });
  expect(await screen.findByText(/none any more/, {}, { timeout: 10_000 })).toBeDefined();
}, 30_000);
