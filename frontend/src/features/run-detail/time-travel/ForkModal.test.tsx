import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";
import type { CheckpointOut, SnapshotOut } from "@/shared/api/schema";
import { ForkModal, objectOf } from "./ForkModal";

const moved = vi.fn();
vi.mock("@tanstack/react-router", async (original) => ({ ...(await original<object>()), useNavigate: () => moved }));

const from = { checkpoint_id: "1f0", next: ["write"], nodes: ["plan"], source: "loop" } as unknown as CheckpointOut;
const run = { dag_id: "essays", dag_run_id: "r1", input_data: { topic: "boats" } } as unknown as SnapshotOut;
const place = { dagId: "essays", runId: "r1", taskId: "task", mapIndex: -1 };

// Which the test's browser doesn't have.
Object.defineProperty(document, "fonts", { value: new EventTarget() });

afterEach(() => {
  cleanup();
  vi.restoreAllMocks();
});

it("forks with what is different, and opens the new run", async () => {
  const sent: { url: string; key: string | null; body: unknown }[] = [];
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input) => {
    const request = input as Request;
    const { pathname } = new URL(request.url);
    sent.push({ url: pathname, key: request.headers.get("idempotency-key"), body: await request.json() });
    if (sent.length === 1) {
      const errors = [{ pointer: "/values", detail: "no such value" }];
      return Response.json({ title: "Unprocessable content", status: 422, detail: "x", errors }, { status: 422 });
    }
    return Response.json({ dag_id: "essays", dag_run_id: "r2" }, { status: 202 });
  });
  render(
    <MantineProvider env="test">
      <QueryClientProvider client={new QueryClient()}>
        <ForkModal place={place} run={run} from={from} onClose={() => undefined} />
      </QueryClientProvider>
    </MantineProvider>,
  );
  const values = await screen.findByLabelText("Change values of the state", {}, { timeout: 10_000 });
  const start = screen.getByRole("button", { name: "Start the fork" });
  fireEvent.change(values, { target: { value: '{"outline"' } });
  expect(start).toHaveProperty("disabled", true);
  fireEvent.change(values, { target: { value: '{"outline": "Mine."}' } });
  fireEvent.change(screen.getByLabelText("Model"), { target: { value: " openai:gpt-4.1 " } });
  fireEvent.click(start);
  expect(await screen.findByText("no such value", {}, { timeout: 10_000 })).toBeDefined();
  fireEvent.click(start);
  await waitFor(() =>
    expect(moved).toHaveBeenCalledWith({ to: "/runs/$dagId/$runId", params: { dagId: "essays", runId: "r2" } }),
  );
  expect(sent[0]).toMatchObject({
    url: "/workflows/essays/runs/r1/tasks/task/fork",
    body: { checkpoint_id: "1f0", map_index: -1, values: { outline: "Mine." }, model: "openai:gpt-4.1" },
  });
  expect(sent[1]?.key).toBe(sent[0]?.key);
}, 30_000);

it("takes objects only", () => {
  expect(objectOf(" ")).toBeUndefined();
  expect(objectOf('{"a": 1')).toBeNull();
  expect(objectOf("[1]")).toBeNull();
  expect(objectOf('{"a": "b"}')).toEqual({ a: "b" });
});
