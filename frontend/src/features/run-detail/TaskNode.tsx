import { Text } from "@mantine/core";
import { IconMessageQuestion } from "@tabler/icons-react";
import { Handle, type Node, type NodeProps, Position } from "@xyflow/react";
import { duration, elapsed, latency } from "@/shared/format/times";
import type { AgentRun } from "@/shared/stream/run-model";
import { StateBadge } from "@/shared/ui/StateBadge";
import { lookOf } from "@/shared/ui/states";
import { DETAILED, type Direction, type GraphTask, LISTED } from "./graph-layout";
import { showQuestion } from "./show-question";
import classes from "./TaskNode.module.css";

export type TaskNodeType = Node<{ task: GraphTask; direction: Direction; onSelect: (key: string) => void }, "task">;

/** A task in the graph. `graph-layout` determines its height. */
export function TaskNode({ data: { task, direction, onSelect } }: NodeProps<TaskNodeType>) {
  const run = task.task;
  const state = run?.state ?? null;
  const shownTry = run?.tries.at(-1);
  const took = shownTry?.finishedAt ? duration(elapsed(shownTry.startedAt, shownTry.finishedAt, 0)) : null;
  const notes = [
    task.instances > 1 ? `${task.done} of ${task.instances}` : null,
    run && run.tryNumber > 1 ? `try ${run.tryNumber}` : null,
    took,
  ].filter((note) => note !== null);
  return (
    <div
      className={classes.node}
      data-tone={lookOf(state).tone}
      data-begun={run !== null || undefined}
      data-waits={state === "awaiting_input" || task.questions.length > 0 || undefined}
    >
      <Handle
        type="target"
        position={direction === "down" ? Position.Top : Position.Left}
        className={classes.handle}
        isConnectable={false}
      />
      <button
        type="button"
        className={`${classes.head} nopan`}
        disabled={!run}
        onClick={() => run && onSelect(run.key)}
        aria-label={`${task.label}: ${lookOf(state).label}. Show its log.`}
      >
        <span className={classes.title}>{task.label}</span>
        <span className={classes.line}>
          <StateBadge state={state} />
          <span className={classes.note}>{notes.join(" · ")}</span>
        </span>
      </button>
      {task.questions[0] ? (
        <button
          type="button"
          className={`${classes.ask} nopan`}
          onClick={() => showQuestion(task.questions[0]?.question_id ?? "")}
        >
          <IconMessageQuestion size={15} aria-hidden />
          {task.questions.length === 1 ? "Answer its question" : `Answer its ${task.questions.length} questions`}
        </button>
      ) : null}
      {task.agents.slice(0, LISTED).map((agent) => (
        <Agent
          key={agent.name}
          agent={agent}
          detailed={task.agents.length <= DETAILED}
          waiting={task.questions.filter((one) => one.agent === agent.name).map((one) => one.node?.split("/")[0] ?? "")}
        />
      ))}
      {task.agents.length > LISTED ? (
        <Text size="xs" c="dimmed" px={12} lh="21px">
          and {task.agents.length - LISTED} more
        </Text>
      ) : null}
      <Handle
        type="source"
        position={direction === "down" ? Position.Bottom : Position.Right}
        className={classes.handle}
        isConnectable={false}
      />
    </div>
  );
}

/** `waiting` has the nodes that wait for an answer. */
function Agent({ agent, detailed, waiting }: { agent: AgentRun; detailed: boolean; waiting: string[] }) {
  const look = lookOf(agent.state);
  return (
    <>
      <div className={classes.agent} data-tone={look.tone}>
        <look.icon size={14} role="img" aria-label={look.label} />
        <span className={classes.name}>{agent.name}</span>
        <span className={classes.note}>{agent.model ?? ""}</span>
      </div>
      {detailed
        ? agent.nodes.map((node) => {
            const nodeLook = lookOf(waiting.includes(node.name) ? "awaiting_input" : node.state);
            return (
              <div key={node.name} className={classes.step} data-tone={nodeLook.tone}>
                <nodeLook.icon size={12} role="img" aria-label={nodeLook.label} />
                <span className="mono">{node.name}</span>
                <span className={classes.note}>{node.latencyMs === null ? "" : latency(node.latencyMs)}</span>
              </div>
            );
          })
        : null}
    </>
  );
}
