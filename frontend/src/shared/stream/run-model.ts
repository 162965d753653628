/** The state of a run, built from its events. Pure: a batch of events turns one model into the next. */
import type { ErrorOut, SnapshotOut } from "../api/schema";
import type { AgentUpdate, BatchCounts, RunEvent, Token } from "./events";

/** Tokens, and the cost in US dollars as far as prices are known (null if none is). */
export interface Used {
  input: number;
  output: number;
  costUsd: number | null;
}

/** A node of an agent's graph, in its latest execution. */
export interface NodeRun {
  name: string;
  state: string;
  latencyMs: number | null;
  attempt: number;
  /** The usage of all its executions. */
  used: Used;
}

/** The output of one model call so far. */
export interface Call {
  number: number;
  node: string;
  attempt: number;
  text: string;
}

/** An agent in one try of its task. */
export interface AgentRun {
  name: string;
  type: string | null;
  tryNumber: number;
  state: string;
  model: string | null;
  latencyMs: number | null;
  retries: number;
  fallbacks: number;
  notice: string | null;
  batch: BatchCounts | null;
  used: Used;
  nodes: NodeRun[];
  calls: Call[];
  /** What the graph has written last to its stream writer. */
  written: { node: string | null; data: unknown } | null;
}

/** A try of a task. */
export interface Try {
  number: number;
  state: string | null;
  startedAt: string | null;
  finishedAt: string | null;
}

/** A task instance with its tries, as far back as the events reach. */
export interface TaskRun {
  key: string;
  taskId: string;
  mapIndex: number;
  state: string | null;
  tryNumber: number;
  tries: Try[];
  agents: AgentRun[];
}

export interface RunModel {
  /** The last event included. */
  seq: number;
  state: string;
  progress: number;
  tasksTotal: number;
  tasksDone: number;
  attempt: number;
  startedAt: string | null;
  finishedAt: string | null;
  tasks: ReadonlyMap<string, TaskRun>;
  /** Oldest first. */
  errors: readonly ErrorOut[];
  result: unknown;
  /** How often a question was asked or answered: what they are is read when it changes. */
  asked: number;
  /** The state in which the run ended. */
  ended: string | null;
}

/** The number of characters kept of a call's output. */
const KEPT_TEXT = 100_000;
const NOTHING: Used = { input: 0, output: 0, costUsd: null };

export const EMPTY: RunModel = {
  seq: 0,
  state: "queued",
  progress: 0,
  tasksTotal: 0,
  tasksDone: 0,
  attempt: 1,
  startedAt: null,
  finishedAt: null,
  tasks: new Map(),
  errors: [],
  result: undefined,
  asked: 0,
  ended: null,
};

export function taskKey(taskId: string, mapIndex = -1): string {
  return mapIndex < 0 ? taskId : `${taskId}[${mapIndex}]`;
}

/** Converts a snapshot to a model. It contains no earlier tries and no output. */
export function fromSnapshot(snapshot: SnapshotOut): RunModel {
  const events: RunEvent[] = [
    { seq: null, type: "workflow_update", data: { ...snapshot, result: snapshot.result ?? undefined } },
    ...snapshot.tasks.map((data): RunEvent => ({ seq: null, type: "task_update", data })),
    ...snapshot.agents.map((data): RunEvent => ({ seq: null, type: "agent_update", data })),
    ...snapshot.errors.toReversed().map((data): RunEvent => ({ seq: null, type: "error", data })),
    ...snapshot.questions.map((data): RunEvent => ({ seq: null, type: "question", data })),
  ];
  return { ...applyEvents(EMPTY, events), seq: snapshot.last_event_id };
}

/** Returns the model after these events. Unchanged parts are the same objects as before. */
export function applyEvents(model: RunModel, events: readonly RunEvent[]): RunModel {
  const draft = new Draft(model);
  for (const event of events) draft.apply(event);
  return draft.done();
}

/** A model being changed; each part is copied once, when it first changes. */
class Draft {
  private readonly model: { -readonly [Name in keyof RunModel]: RunModel[Name] };
  private readonly tasks: Map<string, TaskRun>;
  private readonly own = new Set<object>();
  private errors: ErrorOut[] | null = null;

  constructor(model: RunModel) {
    this.model = { ...model };
    this.tasks = new Map(model.tasks);
  }

  done(): RunModel {
    for (const task of this.tasks.values()) if (this.own.has(task)) stopWithTheTask(task);
    return { ...this.model, tasks: this.tasks, errors: this.errors ?? this.model.errors };
  }

  apply(event: RunEvent): void {
    if (event.seq !== null) {
      if (event.seq <= this.model.seq) return; // repeated after a reconnection
      this.model.seq = event.seq;
    }
    switch (event.type) {
      case "workflow_update": {
        const { data } = event;
        this.model.state = data.state;
        this.model.progress = data.progress;
        this.model.tasksTotal = data.tasks_total;
        this.model.tasksDone = data.tasks_done;
        this.model.attempt = data.attempt ?? this.model.attempt;
        this.model.startedAt = data.started_at;
        this.model.finishedAt = data.finished_at;
        this.model.ended = null;
        this.model.result = data.result;
        break;
      }
      case "task_update": {
        const { data } = event;
        const task = this.task(data.task_id, data.map_index);
        task.state = data.state;
        task.tryNumber = data.try_number;
        const known = task.tries.findIndex((one) => one.number === data.try_number);
        const before = task.tries[known];
        // A cleared task waits under the number of its previous try, which must stay as it was.
        if (before && isOver(before.state) && isAhead(data.state)) break;
        const now: Try = {
          number: data.try_number,
          state: data.state,
          startedAt: data.started_at ?? before?.startedAt ?? null,
          finishedAt: data.finished_at,
        };
        if (data.try_number > 0) task.tries = known < 0 ? [...task.tries, now] : task.tries.with(known, now);
        break;
      }
      case "agent_update":
        this.agentUpdate(event.data);
        break;
      case "token":
        this.token(event.data);
        break;
      case "custom":
        this.agent(event.data).written = { node: event.data.node, data: event.data.data };
        break;
      case "error":
        this.errors ??= [...this.model.errors];
        this.errors.push(event.data);
        break;
      case "question":
      case "answer":
        this.model.asked += 1;
        break;
      case "end":
        this.model.state = this.model.ended = event.data.state;
        break;
    }
  }

  private agentUpdate(data: AgentUpdate): void {
    const agent = this.agent(data);
    const used = { input: data.input_tokens, output: data.output_tokens, costUsd: data.cost_usd };
    agent.model = data.model ?? agent.model;
    if (data.node === null) {
      agent.type = data.type;
      agent.state = data.state;
      agent.latencyMs = data.latency_ms;
      agent.retries = data.retries;
      agent.fallbacks = data.fallbacks;
      agent.notice = data.notice;
      agent.batch = data.batch ?? agent.batch;
      if (data.state === "awaiting_input") {
        // A node that asks doesn't end, and doesn't run either.
        agent.nodes = agent.nodes.map((node) => (node.state === "running" ? { ...node, state: data.state } : node));
      }
      // While an agent runs, its usage is the sum of its nodes' usage.
      if (data.state !== "running" || data.batch) agent.used = used;
      return;
    }
    const index = agent.nodes.findIndex((node) => node.name === data.node);
    const before = agent.nodes[index];
    const ended = data.state !== "running";
    const node: NodeRun = {
      name: data.node,
      state: data.state,
      latencyMs: data.latency_ms,
      attempt: data.attempt,
      used: ended ? sum([before?.used ?? NOTHING, used]) : (before?.used ?? NOTHING),
    };
    agent.nodes = index < 0 ? [...agent.nodes, node] : agent.nodes.with(index, node);
    if (agent.state === "running" && !agent.batch) agent.used = sum(agent.nodes.map((one) => one.used));
  }

  private token(data: Token): void {
    const agent = this.agent(data);
    const number = data.call ?? 0;
    const attempt = data.attempt ?? 1;
    const index = agent.calls.findIndex((call) => call.number === number);
    const before = agent.calls[index];
    if (before && attempt < before.attempt) return;
    // A higher attempt starts over: the previous one's output doesn't count.
    const said = before?.attempt === attempt ? before.text : "";
    const call: Call = { number, node: data.node, attempt, text: (said + data.text).slice(-KEPT_TEXT) };
    agent.calls = index < 0 ? [...agent.calls, call] : agent.calls.with(index, call);
  }

  private task(taskId: string, mapIndex = -1): TaskRun {
    const key = taskKey(taskId, mapIndex);
    const known = this.tasks.get(key);
    if (known && this.own.has(known)) return known;
    const task: TaskRun = known
      ? { ...known, agents: [...known.agents] }
      : { key, taskId, mapIndex, state: null, tryNumber: 0, tries: [], agents: [] };
    this.own.add(task);
    this.tasks.set(key, task);
    return task;
  }

  private agent(data: { task_id: string; map_index?: number; try_number: number; agent: string }): AgentRun {
    const task = this.task(data.task_id, data.map_index);
    const index = task.agents.findIndex((one) => one.name === data.agent && one.tryNumber === data.try_number);
    const known = task.agents[index];
    if (known && this.own.has(known)) return known;
    const agent: AgentRun = known
      ? { ...known }
      : {
          name: data.agent,
          type: null,
          tryNumber: data.try_number,
          state: "running",
          model: null,
          latencyMs: null,
          retries: 0,
          fallbacks: 0,
          notice: null,
          batch: null,
          used: NOTHING,
          nodes: [],
          calls: [],
          written: null,
        };
    this.own.add(agent);
    if (index < 0) task.agents.push(agent);
    else task.agents[index] = agent;
    return agent;
  }
}

/** The agents of a task's latest try that had agents. */
export function latestAgents(task: TaskRun): AgentRun[] {
  const latest = Math.max(0, ...task.agents.map((agent) => agent.tryNumber));
  return task.agents.filter((agent) => agent.tryNumber === latest);
}

/** The usage of all agents in all tries. For a batch its total counts, not the items reported individually. */
export function totalUsage(model: RunModel): Used {
  const all: Used[] = [];
  for (const task of model.tasks.values()) {
    const batches = new Set(task.agents.filter((agent) => agent.batch).map((agent) => agent.tryNumber));
    for (const agent of task.agents) {
      if (agent.batch || !batches.has(agent.tryNumber)) all.push(agent.used);
    }
  }
  return sum(all);
}

function sum(all: readonly Used[]): Used {
  let [input, output, costUsd] = [0, 0, null as number | null];
  for (const used of all) {
    input += used.input;
    output += used.output;
    if (used.costUsd !== null) costUsd = (costUsd ?? 0) + used.costUsd;
  }
  return { input, output, costUsd };
}

/** Closes whatever was running in a finished try; its process was stopped or died, so it reports nothing more. */
function stopWithTheTask(task: TaskRun): void {
  if (!isOver(task.state)) return;
  task.agents = task.agents.map((agent) =>
    agent.state !== "running" || agent.tryNumber > task.tryNumber
      ? agent
      : {
          ...agent,
          state: "stopped",
          nodes: agent.nodes.map((node) => (node.state === "running" ? { ...node, state: "stopped" } : node)),
        },
  );
}

const OVER = new Set(["success", "failed", "skipped", "upstream_failed", "removed", "up_for_retry"]);

function isOver(state: string | null): boolean {
  return state !== null && OVER.has(state);
}

function isAhead(state: string | null): boolean {
  return state === null || state === "scheduled" || state === "queued";
}
