import dagre from "@dagrejs/dagre";
import type { QuestionOut, WorkflowTaskOut } from "@/shared/api/schema";
import type { Group } from "./large/groups";
import { type AgentRun, latestAgents, type RunModel, type TaskRun } from "@/shared/stream/run-model";

/** A task in the graph: one box, however many mapped instances it has. */
export interface GraphTask {
  id: string;
  label: string;
  /** Its instance; for a mapped task, the most telling one. */
  task: TaskRun | null;
  instances: number;
  done: number;
  agents: AgentRun[];
  /** What its agents wait for from people. */
  questions: readonly QuestionOut[];
  downstream: string[];
}

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

export const WIDTH = 236;
const HEAD = 58;
const AGENT = 30;
const NODE = 21;
/** The button that leads to what a task asks. */
const ASKS = 36;
const PADDING = 8;
/** Above the first limit agents' nodes are left out, above the second further agents are only counted. */
export const DETAILED = 3;
export const LISTED = 6;

/** The DAG's tasks with their state in the run. Tasks that the DAG doesn't (or no longer) have stand alone. */
export function graphTasks(
  workflow: readonly WorkflowTaskOut[] | null,
  model: RunModel,
  groups: ReadonlyMap<string, Group>,
  questions: readonly QuestionOut[],
): GraphTask[] {
  const instances = new Map<string, TaskRun[]>();
  for (const task of model.tasks.values()) {
    const others = instances.get(task.taskId);
    if (others) others.push(task);
    else instances.set(task.taskId, [task]);
  }
  const known = workflow ?? [];
  const ids = new Set(known.map((task) => task.task_id));
  const others = [...instances.keys()].filter((id) => !ids.has(id));
  return [
    ...known.map(({ task_id, label, downstream }) => join(task_id, label, downstream, instances.get(task_id) ?? [])),
    ...others.map((id) => join(id, id, [], instances.get(id) ?? [])),
  ].map((task) => {
    // Of a large mapped task, the model may lack instances.
    const group = groups.get(task.id);
    const asked = questions.filter((one) => one.task_id === task.id);
    return { ...task, ...(group ? { instances: group.total, done: doneOf(group) } : {}), questions: asked };
  });
}

function doneOf({ states }: Group): number {
  return states.reduce((all, [state, count]) => (state === "success" || state === "skipped" ? all + count : all), 0);
}

const URGENCY = [
  "awaiting_input",
  "failed",
  "upstream_failed",
  "up_for_retry",
  "up_for_reschedule",
  "running",
  "deferred",
  "restarting",
];

function join(id: string, label: string, downstream: string[], instances: TaskRun[]): GraphTask {
  const urgency = ({ state }: TaskRun) =>
    URGENCY.includes(state ?? "") ? URGENCY.indexOf(state ?? "") : URGENCY.length;
  let task: TaskRun | null = null;
  for (const one of instances) if (task === null || urgency(one) < urgency(task)) task = one;
  return {
    id,
    label,
    task,
    instances: instances.length,
    done: instances.filter((one) => one.state === "success" || one.state === "skipped").length,
    agents: task ? latestAgents(task) : [],
    questions: [],
    downstream,
  };
}

/** The height of a task's box in pixels, as `TaskNode` draws it. */
export function heightOf({ agents, questions }: GraphTask): number {
  const head = HEAD + (questions.length > 0 ? ASKS : 0);
  if (agents.length === 0) return head;
  const listed = agents.slice(0, LISTED);
  const nodes = agents.length <= DETAILED ? listed.reduce((sum, agent) => sum + agent.nodes.length, 0) : 0;
  const more = agents.length > LISTED ? NODE : 0;
  return head + listed.length * AGENT + nodes * NODE + more + PADDING;
}

/** The graph's direction: to the right, or down where space is narrow. */
export type Direction = "right" | "down";

/** The position of each task's box. */
export function layOut(tasks: readonly GraphTask[], direction: Direction = "right"): Map<string, Box> {
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ rankdir: direction === "down" ? "TB" : "LR", nodesep: 28, ranksep: direction === "down" ? 36 : 56 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const task of tasks) graph.setNode(task.id, { width: WIDTH, height: heightOf(task) });
  for (const task of tasks) {
    for (const next of task.downstream) if (graph.hasNode(next)) graph.setEdge(task.id, next);
  }
  dagre.layout(graph);
  return new Map(
    tasks.map((task) => {
      const { x, y, width, height } = graph.node(task.id) as Box;
      return [task.id, { x: x - width / 2, y: y - height / 2, width, height }];
    }),
  );
}
