import "@xyflow/react/dist/base.css";
import { Skeleton, Text, useComputedColorScheme } from "@mantine/core";
import { useMediaQuery } from "@mantine/hooks";
import {
  Background,
  Controls,
  type Edge,
  MarkerType,
  ReactFlow,
  ReactFlowProvider,
  useNodesInitialized,
  useReactFlow,
  useStore,
} from "@xyflow/react";
import { useEffect, useMemo } from "react";
import type { QuestionOut, WorkflowTaskOut } from "@/shared/api/schema";
import type { RunModel } from "@/shared/stream/run-model";
import { isActive } from "@/shared/ui/states";
import type { Group } from "./large/groups";
import { graphTasks, heightOf, layOut } from "./graph-layout";
import classes from "./RunGraph.module.css";
import { TaskNode, type TaskNodeType } from "./TaskNode";

interface Props {
  /** The DAG's tasks; null if unknown. */
  workflow: WorkflowTaskOut[] | null;
  /** Whether the tasks are loading. */
  waiting: boolean;
  model: RunModel;
  groups: ReadonlyMap<string, Group>;
  /** The run's open questions. */
  questions: readonly QuestionOut[];
  onSelect: (task: string) => void;
}

const nodeTypes = { task: TaskNode };

/** The DAG with live states, and its agents and their LangGraph nodes inside the tasks. */
export function RunGraph(props: Props) {
  if (props.waiting) return <Skeleton h="100%" />;
  return (
    <ReactFlowProvider>
      <Flow {...props} />
    </ReactFlowProvider>
  );
}

function Flow({ workflow, model, groups, questions, onSelect }: Props) {
  const colours = useComputedColorScheme();
  const narrow = useMediaQuery("(max-width: 48em)", false, { getInitialValueInEffect: false });
  const direction = narrow ? "down" : "right";
  const tasks = useMemo(() => graphTasks(workflow, model, groups, questions), [workflow, model, groups, questions]);
  // Boxes move only when one of them changes its size, not with every token.
  const shape = tasks.map((task) => `${task.id} ${heightOf(task)} ${task.downstream.join(" ")}`).join("\n");
  // eslint-disable-next-line react-hooks/exhaustive-deps -- the shape represents the tasks
  const boxes = useMemo(() => layOut(tasks, direction), [shape, direction]);

  const nodes = tasks.map((task): TaskNodeType => {
    const { x = 0, y = 0, width, height } = boxes.get(task.id) ?? {};
    return {
      id: task.id,
      type: "task",
      position: { x, y },
      width,
      height,
      data: { task, direction, onSelect },
      // Nodes that can be neither dragged nor selected let clicks through, and these contain a button.
      style: { pointerEvents: "all" },
      ariaLabel: `Task ${task.label}`,
    };
  });
  const edges = tasks.flatMap((task) =>
    task.downstream
      .filter((next) => boxes.has(next))
      .map((next): Edge => ({
        id: `${task.id} ${next}`,
        source: task.id,
        target: next,
        markerEnd: { type: MarkerType.ArrowClosed, width: 16, height: 16, color: "var(--xy-edge-stroke)" },
        animated: task.task?.state === "success" && isGoingOn(tasks.find((one) => one.id === next)?.task?.state),
        ariaLabel: `${task.label}, then ${next}`,
      })),
  );
  if (tasks.length === 0) {
    return (
      <Text c="dimmed" p="lg">
        {isActive(model.state) ? "Tasks appear here when Airflow has created them." : "This run had no tasks."}
      </Text>
    );
  }
  const bottom = Math.max(...[...boxes.values()].map((box) => box.y + box.height));
  return (
    <div style={{ height: narrow ? Math.min(bottom + 48, 560) : "100%" }}>
      <ReactFlow
        className={classes.flow}
        nodes={nodes}
        edges={edges}
        nodeTypes={nodeTypes}
        colorMode={colours}
        nodesDraggable={false}
        nodesConnectable={false}
        edgesFocusable={false}
        nodesFocusable={false}
        elementsSelectable={false}
        // On a phone, dragging on the graph scrolls the page.
        panOnDrag={!narrow}
        zoomOnScroll={false}
        preventScrolling={false}
        minZoom={0.2}
        maxZoom={1.4}
        fitView
        fitViewOptions={FIT}
        aria-label="Graph of the run's tasks"
      >
        <Background gap={22} size={1.6} />
        {narrow ? null : <Controls showInteractive={false} fitViewOptions={FIT} />}
        <FitWhenChanged shape={`${direction} ${shape}`} />
      </ReactFlow>
    </div>
  );
}

const FIT = { padding: 0.12, maxZoom: 1 };

/** Keeps the whole graph in view when it grows or its space changes. */
function FitWhenChanged({ shape }: { shape: string }) {
  const { fitView } = useReactFlow();
  const measured = useNodesInitialized();
  const room = useStore((store) => `${store.width} ${store.height}`);
  useEffect(() => {
    if (!measured) return;
    const frame = requestAnimationFrame(() => void fitView(FIT));
    return () => cancelAnimationFrame(frame);
  }, [fitView, shape, measured, room]);
  return null;
}

function isGoingOn(state: string | null | undefined): boolean {
  return state === "running" || state === "deferred";
}
