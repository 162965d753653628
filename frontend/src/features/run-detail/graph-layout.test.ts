import { describe, expect, it } from "vitest";
import { EMPTY, type RunModel, type TaskRun } from "@/shared/stream/run-model";
import { graphTasks, heightOf, layOut } from "./graph-layout";

const task = (taskId: string, state: string, mapIndex = -1): TaskRun => ({
  key: mapIndex < 0 ? taskId : `${taskId}[${mapIndex}]`,
  taskId,
  mapIndex,
  state,
  tryNumber: 1,
  tries: [],
  agents: [],
});
const model = (...tasks: TaskRun[]): RunModel => ({ ...EMPTY, tasks: new Map(tasks.map((one) => [one.key, one])) });
const dag = (id: string, ...downstream: string[]) => ({
  task_id: id,
  label: id,
  operator: null,
  mapped: false,
  downstream,
});

describe("the graph", () => {
  it("shows the DAG's tasks before they start, and tasks that only the run knows", () => {
    const tasks = graphTasks(
      [dag("a", "b"), dag("b")],
      model(task("a", "success"), task("gone", "failed")),
      new Map(),
      [],
    );
    expect(tasks.map((one) => [one.id, one.task?.state ?? null])).toEqual([
      ["a", "success"],
      ["b", null],
      ["gone", "failed"],
    ]);
  });

  it("has one box for a mapped task, which shows the worst state", () => {
    const [mapped] = graphTasks(
      null,
      model(task("m", "success", 0), task("m", "failed", 1), task("m", "running", 2)),
      new Map(),
      [],
    );
    expect(mapped).toMatchObject({ instances: 3, done: 1, task: { state: "failed" } });
  });

  it("runs from left to right without overlap", () => {
    const tasks = graphTasks(
      [dag("a", "b", "c"), dag("b", "d"), dag("c", "d"), dag("d", "unknown")],
      EMPTY,
      new Map(),
      [],
    );
    const boxes = layOut(tasks);
    const at = (id: string) => boxes.get(id) ?? expect.fail(id);
    expect(at("a").x).toBeLessThan(at("b").x);
    expect(at("b").x).toBeLessThan(at("d").x);
    const [upper, lower] = [at("b"), at("c")].sort((one, other) => one.y - other.y);
    expect((upper?.y ?? 0) + heightOf(tasks[1] ?? expect.fail())).toBeLessThan(lower?.y ?? 0);
  });

  it("runs down where space is narrow", () => {
    const tasks = graphTasks([dag("a", "b"), dag("b")], EMPTY, new Map(), []);
    const [first, second] = ["a", "b"].map((id) => layOut(tasks, "down").get(id) ?? expect.fail(id));
    expect(second?.x).toBe(first?.x);
    expect(second?.y).toBeGreaterThan((first?.y ?? 0) + (first?.height ?? 0));
  });
});
