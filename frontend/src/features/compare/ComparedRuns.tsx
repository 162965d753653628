import { Alert, Badge, Paper, SimpleGrid, Stack, Text, Title } from "@mantine/core";
import type { ChangedValue, ComparedAgent, ComparedSide, Comparison, ExecutionOut } from "@/shared/api/schema";
import { cost, count } from "@/shared/format/amounts";
import { duration, elapsed, latency } from "@/shared/format/times";
import { AnchorLink } from "@/shared/ui/links";
import { StateBadge } from "@/shared/ui/StateBadge";
import { isActive } from "@/shared/ui/states";
import { useNow } from "@/shared/ui/useNow";
import classes from "./ComparedRuns.module.css";

/** What two runs have in common, and what not. */
export function ComparedRuns({ found }: { found: Comparison }) {
  const { left, right } = found;
  return (
    <Stack gap="lg">
      {found.cut ? (
        <Alert color="yellow">The runs are too large to be compared whole: this is the beginning.</Alert>
      ) : null}
      <SimpleGrid cols={{ base: 1, sm: 2 }} spacing="sm">
        <Run run={left} name="Left" />
        <Run run={right} name="Right" source={left.dag_run_id} />
      </SimpleGrid>
      <Changes title="Input" changes={found.input_changes} />
      {found.agents.map((agent) => (
        <Agent key={`${agent.task_id}[${agent.map_index}] ${agent.agent}`} agent={agent} />
      ))}
      <Changes title="Result" changes={found.result_changes} />
    </Stack>
  );
}

function Run({ run, name, source }: { run: ExecutionOut; name: string; source?: string }) {
  const now = useNow(1000, isActive(run.state));
  return (
    <Paper p="md" component="section" aria-label={`${name} run`}>
      <Text size="xs" c="dimmed">
        {name}
        {source !== undefined && run.forked_from?.dag_run_id === source ? ", forked from the left one" : ""}
      </Text>
      <AnchorLink
        to="/runs/$dagId/$runId"
        params={{ dagId: run.dag_id, runId: run.dag_run_id }}
        style={{ overflowWrap: "anywhere" }}
      >
        {run.dag_run_id}
      </AnchorLink>
      <div className={classes.figures}>
        <StateBadge state={run.state} />
        <span>{duration(elapsed(run.started_at, run.finished_at, now))}</span>
        <span>{count(run.usage.input_tokens + run.usage.output_tokens)} tokens</span>
        <span>{cost(run.cost_usd)}</span>
      </div>
    </Paper>
  );
}

function Agent({ agent }: { agent: ComparedAgent }) {
  const name = agent.map_index < 0 ? agent.task_id : `${agent.task_id}[${agent.map_index}]`;
  return (
    <Paper component="section" aria-label={`Agent ${agent.agent}`} className={classes.agent}>
      <div className={classes.row} data-head>
        <Title order={2} size="h4" className={classes.name}>
          {agent.agent}
          <Text size="xs" c="dimmed">
            {name}
          </Text>
        </Title>
        <Side side={agent.left} name="Left" />
        <Side side={agent.right} name="Right" />
      </div>
      {agent.nodes.map((node, index) => (
        <div className={classes.row} key={`${node.node} ${index}`}>
          <div className={classes.name}>
            {node.node}{" "}
            {node.left && node.right ? (
              <Badge size="sm" color={node.same_output ? "gray" : "yellow"}>
                {node.same_output ? "same" : "differs"}
              </Badge>
            ) : null}
          </div>
          <Side side={node.left} name="Left" output={!node.same_output} />
          <Side side={node.right} name="Right" output={!node.same_output} />
        </div>
      ))}
    </Paper>
  );
}

function Side({ side, name, output = false }: { side: ComparedSide | null; name: string; output?: boolean }) {
  if (side === null) {
    return (
      <Text size="sm" c="dimmed" className={classes.side}>
        <span className={classes.phone}>{name}: </span>not run
      </Text>
    );
  }
  return (
    <div className={classes.side}>
      <div className={classes.figures}>
        <span className={classes.phone}>{name}</span>
        <StateBadge state={side.state} />
        {side.model ? <span>{side.model}</span> : null}
        <span>{latency(side.latency_ms)}</span>
        <span>{count(side.input_tokens + side.output_tokens)} tokens</span>
        <span>{cost(side.cost_usd)}</span>
      </div>
      {output && side.output !== null ? (
        <pre className={classes.output}>
          {side.output}
          {side.output_cut ? "…" : ""}
        </pre>
      ) : null}
    </div>
  );
}

function Changes({ title, changes }: { title: string; changes: ChangedValue[] }) {
  return (
    <Paper component="section" aria-label={title} className={classes.agent}>
      <div className={classes.row} data-head>
        <Title order={2} size="h4" className={classes.name}>
          {title}
        </Title>
        {changes.length === 0 ? (
          <Text size="sm" c="dimmed">
            No differences
          </Text>
        ) : null}
      </div>
      {changes.map((change) => (
        <div className={classes.row} key={change.pointer}>
          <code className={classes.name}>{change.pointer || "all of it"}</code>
          <Value value={change.left} name="Left" />
          <Value value={change.right} name="Right" />
        </div>
      ))}
    </Paper>
  );
}

function Value({ value, name }: { value: string | null; name: string }) {
  return (
    <div className={classes.side}>
      <span className={classes.phone}>{name}</span>
      {value === null ? (
        <Text size="sm" c="dimmed">
          none
        </Text>
      ) : (
        <pre className={classes.output}>{value}</pre>
      )}
    </div>
  );
}
