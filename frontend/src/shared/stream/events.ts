import type { AgentOut, ErrorOut, TaskOut } from "../api/schema";

/** The run as a whole. `result` is set at the end. */
export interface WorkflowUpdate {
  state: string;
  progress: number;
  tasks_total: number;
  tasks_done: number;
  started_at: string | null;
  finished_at: string | null;
  attempt?: number;
  result?: unknown;
}

/** The counts of a batch in its task's current try. */
export interface BatchCounts {
  items: number;
  succeeded: number;
  failed: number;
  running: number;
  /** Items that wait for people; older events don't say. */
  waiting?: number;
}

export type AgentUpdate = AgentOut & { batch?: BatchCounts };

/** What a graph has written to its stream writer. */
export interface Custom {
  task_id: string;
  map_index?: number;
  try_number: number;
  agent: string;
  node: string | null;
  data: unknown;
}

/** A piece of an agent's output. Only the text of a call's highest attempt counts. */
export interface Token {
  task_id: string;
  map_index?: number;
  try_number: number;
  agent: string;
  node: string;
  call?: number;
  attempt?: number;
  text: string;
}

/** An event of a stream. `seq` is its position in the run's log; null where only the last of several has one. */
export type RunEvent = { seq: number | null } & (
  | { type: "workflow_update"; data: WorkflowUpdate }
  | { type: "task_update"; data: TaskOut }
  | { type: "agent_update"; data: AgentUpdate }
  | { type: "token"; data: Token }
  | { type: "error"; data: ErrorOut }
  | { type: "question"; data: { question_id: string } }
  | { type: "answer"; data: { question_id: string } }
  | { type: "custom"; data: Custom }
  | { type: "end"; data: { state: string } }
);

export const EVENT_TYPES = [
  "workflow_update",
  "task_update",
  "agent_update",
  "token",
  "error",
  "question",
  "answer",
  "custom",
  "end",
] as const;
