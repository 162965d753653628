import { Group, Paper, Progress, Stack, Text } from "@mantine/core";
import { IconArrowNarrowRight, IconRobot } from "@tabler/icons-react";
import { memo, type ReactNode, useEffect, useLayoutEffect, useRef } from "react";
import { stringify } from "@/shared/api/exact-json";
import { cost, count } from "@/shared/format/amounts";
import { latency } from "@/shared/format/times";
import { type AgentRun, latestAgents, type NodeRun } from "@/shared/stream/run-model";
import type { WatchedRun } from "@/shared/stream/useRun";
import { EmptyState } from "@/shared/ui/EmptyState";
import { StateBadge } from "@/shared/ui/StateBadge";
import { isActive, lookOf } from "@/shared/ui/states";
import classes from "./AgentsPanel.module.css";
import type { Group as Instances } from "./large/groups";
import { TaskGroup } from "./large/TaskGroup";

/** Agents shown individually. The stream reports only some of a batch's items. */
const SHOWN = 60;

interface Props {
  run: WatchedRun;
  groups: ReadonlyMap<string, Instances>;
  onSelect: (task: string) => void;
}

/** The run's agents in their latest try: nodes, usage, and their output as it streams. */
export function AgentsPanel({ run, groups, onSelect }: Props) {
  const { model, snapshot } = run;
  const agents = [...model.tasks.values()].flatMap((task) =>
    groups.has(task.taskId) ? [] : latestAgents(task).map((agent) => ({ task: task.key, agent })),
  );
  if (agents.length === 0 && groups.size === 0) {
    return (
      <Paper>
        <EmptyState icon={IconRobot} title={isActive(model.state) ? "No agent has started yet" : "No agents ran"}>
          {isActive(model.state)
            ? "When a task starts its agent, the agent's nodes and output appear here."
            : "This run ended before an agent started, or its tasks have no agents."}
        </EmptyState>
      </Paper>
    );
  }
  const batches = agents.filter(({ agent }) => agent.batch);
  const batchOf = (one: (typeof agents)[number]) =>
    batches.find(({ task, agent }) => task === one.task && one.agent.name.startsWith(`${agent.name}[`));
  const shown = agents.slice(0, SHOWN);
  return (
    <Stack gap="md">
      {shown
        .filter((one) => !batchOf(one))
        .map((one) => (
          <AgentCard key={`${one.task}/${one.agent.name}`} {...one}>
            {one.agent.batch ? <Items agents={shown.filter((item) => batchOf(item)?.agent === one.agent)} /> : null}
          </AgentCard>
        ))}
      {[...groups.values()].map((group) => (
        <TaskGroup key={group.taskId} run={snapshot} group={group} onSelect={onSelect} />
      ))}
      {agents.length > SHOWN ? <Text c="dimmed">and {count(agents.length - SHOWN)} more</Text> : null}
    </Stack>
  );
}

/** The batch items that the stream reports, one per line. */
function Items({ agents }: { agents: { agent: AgentRun }[] }) {
  return (
    <ul className={classes.items} aria-label="Items">
      {agents.map(({ agent }) => (
        <Item key={agent.name} agent={agent} />
      ))}
    </ul>
  );
}

const Item = memo(function Item({ agent }: { agent: AgentRun }) {
  return (
    <li>
      <StateBadge state={agent.state} iconOnly />
      <span className={classes.itemName}>{agent.name}</span>
      <Nodes nodes={agent.nodes} />
      <Figures agent={agent} />
    </li>
  );
});

interface CardProps {
  task: string;
  agent: AgentRun;
  children?: ReactNode;
}

const AgentCard = memo(function AgentCard({ task, agent, children }: CardProps) {
  const spoken = agent.calls.filter((call) => call.text);
  return (
    <Paper component="section" aria-label={`Agent ${agent.name} of ${task}`}>
      <Group px="md" py="sm" justify="space-between" gap="sm">
        <Group gap="sm">
          <Text fw={600}>{agent.name}</Text>
          <StateBadge state={agent.state} />
          <Text size="sm" c="dimmed">
            in {task}
            {agent.tryNumber > 1 ? `, try ${agent.tryNumber}` : ""}
          </Text>
        </Group>
        <Figures agent={agent} withModel />
      </Group>
      {agent.batch ? <Batch {...agent.batch} /> : null}
      {agent.nodes.length > 0 ? (
        <div className={classes.path}>
          <Nodes nodes={agent.nodes} />
        </div>
      ) : null}
      {agent.notice ? (
        <Text size="sm" c="dimmed" px="md" pb="sm">
          {agent.notice}
        </Text>
      ) : null}
      {agent.written ? (
        <Text size="sm" px="md" pb="sm" lineClamp={3} className="mono" aria-label="Written by the graph">
          {agent.written.node ? `${agent.written.node}: ` : null}
          {typeof agent.written.data === "string" ? agent.written.data : stringify(agent.written.data)}
        </Text>
      ) : null}
      {spoken.map((call) => (
        <Speech
          key={call.number}
          label={spoken.length > 1 ? `${call.node}, call ${call.number}` : call.node}
          attempt={call.attempt}
          text={call.text}
          live={agent.state === "running" && call === spoken.at(-1)}
        />
      ))}
      {children}
    </Paper>
  );
});

/** An agent's usage, retries and fallbacks so far; unknown values are left out. */
function Figures({ agent, withModel = false }: { agent: AgentRun; withModel?: boolean }) {
  const tokens = agent.used.input + agent.used.output;
  const over = agent.state !== "running";
  return (
    <div className={classes.figures}>
      {withModel && agent.model ? <span className="mono">{agent.model}</span> : null}
      {agent.retries > 0 ? <span>{agent.retries === 1 ? "1 retry" : `${agent.retries} retries`}</span> : null}
      {agent.fallbacks > 0 ? (
        <span>{agent.fallbacks === 1 ? "1 fallback" : `${agent.fallbacks} fallbacks`}</span>
      ) : null}
      {over || tokens > 0 ? <span>{count(tokens)} tokens</span> : null}
      {agent.used.costUsd === null ? null : <span>{cost(agent.used.costUsd)}</span>}
      {agent.latencyMs === null ? null : <span>{latency(agent.latencyMs)}</span>}
    </div>
  );
}

/** The nodes of an agent's graph, in the order in which they started. */
function Nodes({ nodes }: { nodes: readonly NodeRun[] }) {
  return (
    <ol className={classes.nodes} aria-label="Nodes">
      {nodes.map((node, index) => {
        const { icon: Icon, tone, label } = lookOf(node.state);
        return (
          <li key={node.name}>
            {index > 0 ? <IconArrowNarrowRight size={14} aria-hidden className={classes.arrow} /> : null}
            <span className={classes.node} data-tone={tone} title={label}>
              <Icon size={14} role="img" aria-label={label} />
              <span className="mono">{node.name}</span>
              {node.latencyMs === null ? null : (
                <Text component="span" size="xs" c="dimmed" className="tabular">
                  {latency(node.latencyMs)}
                </Text>
              )}
            </span>
          </li>
        );
      })}
    </ol>
  );
}

function Batch({
  items,
  succeeded,
  failed,
  running,
  waiting = 0,
}: {
  items: number;
  succeeded: number;
  failed: number;
  running: number;
  waiting?: number;
}) {
  const share = (part: number) => (items > 0 ? (part / items) * 100 : 0);
  return (
    <div className={classes.batch}>
      <Progress.Root size={8}>
        <Progress.Section value={share(succeeded)} color="var(--state-good)" aria-label="Succeeded" />
        <Progress.Section value={share(failed)} color="var(--state-bad)" aria-label="Failed" />
        <Progress.Section value={share(running)} color="var(--state-live)" aria-label="Running" />
      </Progress.Root>
      <Text size="xs" c="dimmed" mt={4} className="tabular">
        {count(succeeded)} of {count(items)} succeeded, {count(failed)} failed, {count(running)} running
        {waiting > 0 ? `, ${count(waiting)} waiting for answers` : null}
      </Text>
    </div>
  );
}

/** A call's output. It keeps scrolling while its end is in view. */
function Speech({ label, attempt, text, live }: { label: string; attempt: number; text: string; live: boolean }) {
  const box = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const look = () => {
      follows.current = element.scrollHeight - element.scrollTop - element.clientHeight < 24;
    };
    element.addEventListener("scroll", look, { passive: true });
    return () => element.removeEventListener("scroll", look);
  }, []);
  useLayoutEffect(() => {
    if (live && follows.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text, live]);
  return (
    <div className={classes.speech}>
      <Text size="xs" c="dimmed" mb={4}>
        <span className="mono">{label}</span>
        {attempt > 1 ? `, attempt ${attempt}` : ""}
      </Text>
      <div
        ref={box}
        className={classes.text}
        data-live={live || undefined}
        tabIndex={0}
        role="log"
        aria-label={`Output of ${label}`}
        aria-live="off"
      >
        {text}
      </div>
    </div>
  );
}
