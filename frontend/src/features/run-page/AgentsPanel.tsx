import { Group, Paper, Progress, Stack, Text } from "@mantine/core";
import { IconArrowNarrowRight, IconRobot } from "@tabler/icons-react";
import { memo, useEffect, useLayoutEffect, useRef } from "react";
import { cost, count } from "@/shared/format/amounts";
import { latency } from "@/shared/format/times";
import { type AgentRun, latestAgents, type RunModel } from "@/shared/stream/run-model";
import { EmptyState } from "@/shared/ui/EmptyState";
import { StateBadge } from "@/shared/ui/StateBadge";
import { isActive, lookOf } from "@/shared/ui/states";
import classes from "./AgentsPanel.module.css";

/** So many agents are shown one by one; of a batch the stream tells of some of its items only. */
const SHOWN = 60;

/** The agents of the run in their latest try: nodes, use, and what they say as they say it. */
export function AgentsPanel({ model }: { model: RunModel }) {
  const agents = [...model.tasks.values()].flatMap((task) =>
    latestAgents(task).map((agent) => ({ task: task.key, agent })),
  );
  if (agents.length === 0) {
    return (
      <Paper>
        <EmptyState icon={IconRobot} title={isActive(model.state) ? "No agent has begun yet" : "No agent worked"}>
          {isActive(model.state)
            ? "As soon as a task starts its agent, its nodes and words appear here."
            : "This run ended before an agent began, or its tasks have none."}
        </EmptyState>
      </Paper>
    );
  }
  return (
    <Stack gap="md">
      {agents.slice(0, SHOWN).map(({ task, agent }) => (
        <AgentCard key={`${task}/${agent.name}`} task={task} agent={agent} />
      ))}
      {agents.length > SHOWN ? <Text c="dimmed">and {count(agents.length - SHOWN)} more</Text> : null}
    </Stack>
  );
}

const AgentCard = memo(function AgentCard({ task, agent }: { task: string; agent: AgentRun }) {
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
        <Group gap="lg" className={classes.figures}>
          {agent.model ? <span className="mono">{agent.model}</span> : null}
          {agent.retries > 0 ? <span>{agent.retries} retries</span> : null}
          {agent.fallbacks > 0 ? <span>{agent.fallbacks} fallbacks</span> : null}
          <span>{count(agent.used.input + agent.used.output)} tokens</span>
          <span>{cost(agent.used.costUsd)}</span>
          <span>{latency(agent.latencyMs)}</span>
        </Group>
      </Group>
      {agent.batch ? <Batch {...agent.batch} /> : null}
      {agent.nodes.length > 0 ? (
        <ol className={classes.nodes} aria-label="Nodes">
          {agent.nodes.map((node, index) => {
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
      ) : null}
      {agent.notice ? (
        <Text size="sm" c="dimmed" px="md" pb="sm">
          {agent.notice}
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
    </Paper>
  );
});

function Batch({
  items,
  succeeded,
  failed,
  running,
}: {
  items: number;
  succeeded: number;
  failed: number;
  running: number;
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
        {count(succeeded)} succeeded, {count(failed)} failed, {count(running)} at work, of {count(items)}
      </Text>
    </div>
  );
}

/** What a call says. It scrolls along as long as its end is in view. */
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
        <span className="mono">{label}</span> says{attempt > 1 ? `, attempt ${attempt}` : ""}
      </Text>
      <div
        ref={box}
        className={classes.text}
        data-live={live || undefined}
        tabIndex={0}
        role="log"
        aria-label={`Words of ${label}`}
        aria-live="off"
      >
        {text}
      </div>
    </div>
  );
}
