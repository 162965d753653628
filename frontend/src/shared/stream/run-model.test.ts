import { describe, expect, it } from "vitest";
import type { ErrorOut, SnapshotOut, TaskOut } from "../api/schema";
import type { AgentUpdate, RunEvent, Token, WorkflowUpdate } from "./events";
import { applyEvents, EMPTY, fromSnapshot, latestAgents, type RunModel, totalUsage } from "./run-model";

type Told = RunEvent extends infer One ? (One extends { seq: unknown } ? Omit<One, "seq"> : never) : never;

/** The model after these events, numbered from 1 on. */
function after(...events: Told[]): RunModel {
  return applyEvents(
    EMPTY,
    events.map((event, index) => ({ ...event, seq: index + 1 })),
  );
}

function run(change: Partial<WorkflowUpdate> = {}): Told {
  const data = { state: "running", progress: 0, tasks_total: 3, tasks_done: 0, started_at: null, finished_at: null };
  return { type: "workflow_update", data: { ...data, ...change } };
}

function task(state: string | null, change: Partial<TaskOut> = {}): Told {
  const data = { task_id: "look", map_index: -1, try_number: 1, started_at: null, finished_at: null, duration: null };
  return { type: "task_update", data: { ...data, state, ...change } };
}

function agent(state: string, change: Partial<AgentUpdate> = {}): Told {
  const data = {
    id: "0b6a2a1e-3f3c-4d5e-8f60-718293a4b5c6",
    task_id: "look",
    map_index: -1,
    try_number: 1,
    agent: "vision",
    type: "vision",
    node: null,
    model: null,
    input_tokens: 0,
    output_tokens: 0,
    cost_usd: null,
    latency_ms: null,
    attempt: 1,
    retries: 0,
    fallbacks: 0,
    notice: null,
  };
  return { type: "agent_update", data: { ...data, state, ...change } };
}

function token(text: string, change: Partial<Token> = {}): Told {
  const data = { task_id: "look", map_index: -1, try_number: 1, agent: "vision", node: "analyse", call: 1, attempt: 1 };
  return { type: "token", data: { ...data, text, ...change } };
}

function only<T>(all: Iterable<T>): T {
  const [first, ...others] = all;
  expect(others).toEqual([]);
  expect(first).toBeDefined();
  return first as T;
}

describe("agents' output", () => {
  const texts = (model: RunModel) =>
    [...model.tasks.values()].flatMap((one) => one.agents.flatMap((it) => it.calls.map((call) => call.text)));

  it("is joined", () => {
    expect(texts(after(token("The "), token("total")))).toEqual(["The total"]);
  });

  it("is that of each call's highest attempt", () => {
    const model = after(
      token("wro"),
      token("", { attempt: 2 }),
      token("late", { attempt: 1 }),
      token("right", { attempt: 2 }),
    );
    expect(texts(model)).toEqual(["right"]);
  });

  it("is separated by call, agent and try", () => {
    const model = after(
      token("a"),
      token("b", { call: 2, node: "report" }),
      token("c", { agent: "text" }),
      token("d", { try_number: 2 }),
    );
    expect(texts(model)).toEqual(["a", "b", "c", "d"]);
    expect(latestAgents(only(model.tasks.values())).map((one) => one.tryNumber)).toEqual([2]);
  });

  it("isn't repeated after a reconnection", () => {
    const model = after(token("once"));
    const again = applyEvents(model, [
      { ...token("once"), seq: 1 },
      { ...token(" more"), seq: 2 },
    ]);
    expect(texts(again)).toEqual(["once more"]);
    expect(again.seq).toBe(2);
  });
});

describe("tries", () => {
  it("are kept when another one follows", () => {
    const model = after(
      task("running", { started_at: "2026-01-01T00:00:00Z" }),
      task("up_for_retry", { finished_at: "2026-01-01T00:00:05Z" }),
      task("queued", { try_number: 2 }),
      task("running", { try_number: 2, started_at: "2026-01-01T00:00:20Z" }),
    );
    const known = only(model.tasks.values());
    expect(known.state).toBe("running");
    expect(known.tries).toEqual([
      { number: 1, state: "up_for_retry", startedAt: "2026-01-01T00:00:00Z", finishedAt: "2026-01-01T00:00:05Z" },
      { number: 2, state: "running", startedAt: "2026-01-01T00:00:20Z", finishedAt: null },
    ]);
  });

  it("keep their final state when the task is cleared", () => {
    const model = after(task("failed", { finished_at: "2026-01-01T00:00:05Z" }), task(null), task("scheduled"));
    const known = only(model.tasks.values());
    expect(known.state).toBe("scheduled");
    expect(known.tries.map((one) => one.state)).toEqual(["failed"]);
  });

  it("of mapped tasks are separate", () => {
    const model = after(task("running", { map_index: 0 }), task("success", { map_index: 1 }));
    expect([...model.tasks.keys()]).toEqual(["look[0]", "look[1]"]);
  });
});

describe("usage", () => {
  const node = (name: string, state: string, tokens = 0, cost: number | null = null) =>
    agent(state, { node: name, input_tokens: tokens, cost_usd: cost });

  it("is the sum of the nodes while the agent runs, then the agent's own", () => {
    const running = [agent("running"), node("a", "success", 10, 0.5), node("b", "running")];
    expect(totalUsage(after(...running))).toEqual({ input: 10, output: 0, costUsd: 0.5 });
    const ended = after(...running, agent("success", { input_tokens: 30, output_tokens: 4, cost_usd: 2 }));
    expect(totalUsage(ended)).toEqual({ input: 30, output: 4, costUsd: 2 });
  });

  it("counts each execution of a node, and each try", () => {
    const model = after(
      node("a", "failed", 10),
      node("a", "running"),
      node("a", "success", 5),
      agent("success", { try_number: 2, input_tokens: 100 }),
    );
    expect(totalUsage(model).input).toBe(115);
  });

  it("of a batch is its total, without the items reported individually", () => {
    const batch = { items: 2, succeeded: 1, failed: 0, running: 1 };
    const model = after(
      agent("success", { agent: "vision[0]", input_tokens: 7 }),
      agent("running", { batch, input_tokens: 20 }),
    );
    expect(totalUsage(model).input).toBe(20);
  });
});

describe("a run", () => {
  it("ends, and continues when it is retried", () => {
    const ended = after(run({ state: "failed" }), { type: "end", data: { state: "failed" } });
    expect([ended.state, ended.ended]).toEqual(["failed", "failed"]);
    const again = applyEvents(ended, [{ ...run({ attempt: 2 }), seq: 3 }]);
    expect([again.state, again.ended, again.attempt]).toEqual(["running", null, 2]);
  });

  it("shows nothing running in a finished task", () => {
    const node = agent("running", { node: "analyse" });
    const stopped = after(agent("running"), node, task("failed"));
    expect(only(stopped.tasks.values()).agents).toMatchObject([{ state: "stopped", nodes: [{ state: "stopped" }] }]);
    // A snapshot lists tasks before agents, and the next try starts before the previous one's end is reported.
    expect(only(after(task("failed"), agent("running")).tasks.values()).agents[0]?.state).toBe("stopped");
    const next = after(task("up_for_retry"), agent("running", { try_number: 2 }));
    expect(only(next.tasks.values()).agents[0]?.state).toBe("running");
  });

  it("keeps objects that no event changes", () => {
    const before = after(task("success"), task("running", { task_id: "other" }));
    const next = applyEvents(before, [{ ...task("success", { task_id: "other" }), seq: 3 }]);
    expect(next.tasks.get("look")).toBe(before.tasks.get("look"));
    expect(next.tasks.get("other")).not.toBe(before.tasks.get("other"));
    expect(before.tasks.get("other")?.state).toBe("running");
  });

  it("is the same from a snapshot as from its events", () => {
    const told = [
      run({ state: "success", progress: 100, tasks_done: 3, result: { answer: 42 } }),
      task("success", { started_at: "2026-01-01T00:00:00Z" }),
      agent("success", { node: "analyse", input_tokens: 3 }),
      agent("success", { input_tokens: 3, latency_ms: 12 }),
    ];
    const first = { category: "server", occurred_at: "1" } as ErrorOut;
    const second = { category: "timeout", occurred_at: "2" } as ErrorOut;
    const model = after(...told, { type: "error", data: first }, { type: "error", data: second });
    const data = told.map((event) => event.data);
    const snapshot = {
      ...data[0],
      attempt: 1,
      tasks: [data[1]],
      agents: [data[2], data[3]],
      errors: [second, first],
      questions: [],
      last_event_id: model.seq,
    } as unknown as SnapshotOut;
    expect(fromSnapshot(snapshot)).toEqual(model);
  });

  it("keeps what the graph has written last", () => {
    const wrote = (node: string | null, data: unknown) => {
      const place = { task_id: "look", map_index: -1, try_number: 1, agent: "vision" };
      return { type: "custom" as const, data: { ...place, node, data } };
    };
    const model = after(wrote("read", { progress: 0.5 }), wrote(null, "done"));
    const [task] = model.tasks.values();
    expect(task?.agents[0]?.written).toEqual({ node: null, data: "done" });
  });

  it("counts what is asked and answered", () => {
    const asked = { type: "question" as const, data: { question_id: "a" } };
    expect(after(asked, asked, { ...asked, type: "answer" }).asked).toBe(3);
  });
});
