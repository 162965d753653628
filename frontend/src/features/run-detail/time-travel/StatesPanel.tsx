import { Badge, Button, Center, Group, Paper, Select, Skeleton, Stack, Text, UnstyledButton } from "@mantine/core";
import { IconChevronDown, IconChevronRight, IconGitFork, IconHistory } from "@tabler/icons-react";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import type { CheckpointOut, SnapshotOut } from "@/shared/api/schema";
import { mayChange, useMe } from "@/shared/api/session";
import { bytes } from "@/shared/format/amounts";
import { fullMoment, moment } from "@/shared/format/times";
import { latestAgents, type RunModel } from "@/shared/stream/run-model";
import { EmptyState } from "@/shared/ui/EmptyState";
import { JsonView } from "@/shared/ui/JsonView";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { isTruncated } from "../large/truncated";
import { TruncatedValue } from "../large/TruncatedValue";
import { ForkModal } from "./ForkModal";
import { checkpointsQuery, type Place, stateQuery } from "./queries";
import classes from "./StatesPanel.module.css";

/** The states of a task's agents over time, from each of which a new run can go on. */
export function StatesPanel({ run, model }: { run: SnapshotOut; model: RunModel }) {
  const tasks = [...model.tasks.values()].filter((task) => latestAgents(task).length > 0);
  const [chosen, setChosen] = useState<string | null>(null);
  const task = tasks.find((one) => one.key === chosen) ?? tasks[0];
  if (task === undefined) {
    return (
      <Paper>
        <EmptyState icon={IconHistory} title="No states">
          An agent keeps its state after each step of its graph. No agent of this run has started.
        </EmptyState>
      </Paper>
    );
  }
  const place = { dagId: run.dag_id, runId: run.dag_run_id, taskId: task.taskId, mapIndex: task.mapIndex };
  return (
    <Stack gap="sm">
      {tasks.length > 1 ? (
        <Select
          label="Task"
          data={tasks.map((one) => one.key)}
          value={task.key}
          onChange={setChosen}
          allowDeselect={false}
          searchable
          maw={360}
        />
      ) : null}
      <States key={task.key} place={place} run={run} />
    </Stack>
  );
}

function States({ place, run }: { place: Place; run: SnapshotOut }) {
  const allowed = mayChange(useMe().role);
  const query = useInfiniteQuery(checkpointsQuery(place));
  const [forked, setForked] = useState<CheckpointOut | null>(null);
  const rows = query.data?.pages.flatMap((page) => page.checkpoints) ?? [];
  const note = query.data?.pages[0]?.note;
  const several = new Set(rows.map(nameOf)).size > 1;
  return (
    <>
      {query.isError ? <ProblemAlert error={query.error} onRetry={() => void query.refetch()} /> : null}
      {query.isPending ? <Skeleton h={240} role="status" aria-busy="true" aria-label="Loading the states" /> : null}
      {query.isSuccess && rows.length === 0 ? (
        <Paper>
          <EmptyState icon={IconHistory} title="No states">
            {note ?? "This task has none."}
          </EmptyState>
        </Paper>
      ) : null}
      {rows.length > 0 ? (
        <Paper component="ol" className={classes.states} aria-label="States, newest first">
          {rows.map((one) => (
            <State
              key={`${one.checkpoint_id} ${one.namespace}`}
              place={place}
              one={one}
              several={several}
              onFork={allowed ? setForked : undefined}
            />
          ))}
        </Paper>
      ) : null}
      {rows.length > 0 && note ? (
        <Text size="sm" c="dimmed">
          {note}
        </Text>
      ) : null}
      {query.hasNextPage ? (
        <Center>
          <Button variant="default" loading={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
            Show older
          </Button>
        </Center>
      ) : null}
      {forked ? <ForkModal place={place} run={run} from={forked} onClose={() => setForked(null)} /> : null}
    </>
  );
}

interface StateProps {
  place: Place;
  one: CheckpointOut;
  /** Whether the list has states of several agents. */
  several: boolean;
  onFork: ((one: CheckpointOut) => void) | undefined;
}

function State({ place, one, several, onFork }: StateProps) {
  const [opened, setOpened] = useState(false);
  const Chevron = opened ? IconChevronDown : IconChevronRight;
  const wrote = titleOf(one);
  return (
    <li>
      <Group justify="space-between" wrap="nowrap" gap="sm">
        <UnstyledButton className={classes.title} aria-expanded={opened} onClick={() => setOpened(!opened)}>
          <Chevron size={16} aria-hidden className={classes.chevron} />
          <span className={classes.names}>
            <Text component="span" fw={600}>
              {wrote}
            </Text>
            <Text component="span" size="sm" c="dimmed">
              {one.next.length > 0 ? `next: ${one.next.map(shown).join(", ")}` : "the end"}
            </Text>
            {one.asks ? (
              <Badge size="sm" color="yellow">
                asks
              </Badge>
            ) : null}
            <Text component="span" size="xs" c="dimmed" className="tabular" title={fullMoment(one.created_at)}>
              {[several ? nameOf(one) : null, subgraphOf(one), moment(one.created_at), bytes(one.bytes)]
                .filter(Boolean)
                .join(" · ")}
            </Text>
          </span>
        </UnstyledButton>
        {onFork ? (
          <Button
            size="xs"
            variant="default"
            leftSection={<IconGitFork size={14} aria-hidden />}
            onClick={() => onFork(one)}
            aria-label={`Fork from here: ${wrote}`}
            style={{ flexShrink: 0 }}
          >
            Fork<span className={classes.long}>&nbsp;from here</span>
          </Button>
        ) : null}
      </Group>
      {opened ? <Values place={place} one={one} /> : null}
    </li>
  );
}

function Values({ place, one }: { place: Place; one: CheckpointOut }) {
  const query = useQuery(stateQuery(place, one.checkpoint_id));
  if (query.isError) return <ProblemAlert error={query.error} onRetry={() => void query.refetch()} />;
  if (query.isPending)
    return <Skeleton h={120} mt="xs" role="status" aria-busy="true" aria-label="Loading the state" />;
  const values: unknown = query.data.values;
  return (
    <div className={classes.values}>
      {isTruncated(values) ? (
        <TruncatedValue value={values} name="state" />
      ) : (
        <JsonView value={values} label="the state" />
      )}
    </div>
  );
}

/** What a state came from: nodes, the input, or a change. */
export function titleOf(one: CheckpointOut): string {
  if (one.source === "update") return "Changed values";
  const nodes = one.nodes.filter((name) => name !== "__start__");
  if (nodes.length > 0) return nodes.join(", ");
  return one.source === "input" ? "Input" : "Start";
}

function shown(node: string): string {
  return node === "__start__" ? "start" : node;
}

function nameOf(one: CheckpointOut): string {
  const item = one.item === null ? "" : `[${one.item}]`;
  return `${one.agent ?? "agent"}${item}${one.call > 1 ? `, call ${one.call}` : ""}`;
}

/** The path of the subgraph, without the ids of its executions. */
function subgraphOf(one: CheckpointOut): string | null {
  if (one.namespace === "") return null;
  const names = one.namespace.split("|").map((part) => part.split(":")[0]);
  return `in ${names.join("/")}`;
}
