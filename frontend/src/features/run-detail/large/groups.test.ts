import { describe, expect, it } from "vitest";
import { EMPTY, type RunModel, taskKey, type TaskRun } from "@/shared/stream/run-model";
import { GROUPED, groupsOf } from "./groups";
import { isTruncated, smallInput } from "./truncated";

function model(taskId: string, states: (string | null)[]): RunModel {
  const tasks = states.map((state, mapIndex): [string, TaskRun] => {
    const key = taskKey(taskId, mapIndex);
    return [key, { key, taskId, mapIndex, state, tryNumber: 1, tries: [], agents: [] }];
  });
  return { ...EMPTY, tasks: new Map(tasks) };
}

describe("groups", () => {
  it("are mapped tasks with many instances", () => {
    const few = model("each", Array<string>(GROUPED).fill("success"));
    expect(groupsOf(few, { each: { success: GROUPED } }).size).toBe(0);
    const many = model("each", [...Array<string>(GROUPED).fill("success"), "failed"]);
    expect(groupsOf(many, {}).get("each")).toEqual({
      taskId: "each",
      total: GROUPED + 1,
      states: [
        ["failed", 1],
        ["success", GROUPED],
      ],
    });
  });

  it("are counted by the snapshot where the page does not know all instances", () => {
    const groups = groupsOf(model("each", ["failed", "running"]), { each: { success: 9_998, failed: 1, running: 1 } });
    expect(groups.get("each")?.total).toBe(10_000);
    expect(groups.get("each")?.states).toEqual([
      ["failed", 1],
      ["running", 1],
      ["success", 9_998],
    ]);
  });

  it("are live where the page knows all instances", () => {
    const live = model("each", Array<string>(30).fill("success"));
    expect(groupsOf(live, { each: { running: 30 } }).get("each")?.states).toEqual([["success", 30]]);
  });
});

describe("a large value", () => {
  const large = {
    truncated: true as const,
    bytes: 40_000,
    media_type: "application/json",
    sha256: "00",
    excerpt: "{",
    url: "/workflow-status/a/b/input",
  };

  it("is recognised, and an agent's own value is not taken for one", () => {
    expect(isTruncated(large)).toBe(true);
    expect(isTruncated({ truncated: true, output: "…" })).toBe(false);
    expect(isTruncated({ ...large, url: "https://example.com" })).toBe(false);
    expect(isTruncated(null)).toBe(false);
  });

  it("is not taken for the input's fields", () => {
    expect(smallInput({ input_data: large })).toEqual({});
    expect(smallInput({ input_data: { text: "x" } })).toEqual({ text: "x" });
  });
});
