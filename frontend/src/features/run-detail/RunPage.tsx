import { Alert, Breadcrumbs, Paper, Skeleton, Stack, Tabs } from "@mantine/core";
import { useDocumentTitle } from "@mantine/hooks";
import { IconInfoCircle, IconMapPinOff } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { CatchBoundary, getRouteApi } from "@tanstack/react-router";
import { lazy, Suspense, useCallback, useMemo } from "react";
import { asProblem } from "@/shared/api/problem";
import type { ErrorOut } from "@/shared/api/schema";
import { workflowQuery } from "@/shared/api/workflows";
import { useRun, type WatchedRun } from "@/shared/stream/useRun";
import { EmptyState } from "@/shared/ui/EmptyState";
import { AnchorLink, ButtonLink } from "@/shared/ui/links";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { isActive, lookOf } from "@/shared/ui/states";
import { AgentsPanel } from "./AgentsPanel";
import { ErrorsPanel } from "./ErrorsPanel";
import { groupsOf, instanceQuery } from "./large/groups";
import { smallInput } from "./large/truncated";
import { InputPanel } from "./InputPanel";
import { QuestionsPanel } from "./QuestionsPanel";
import { picturesOf } from "./pictures";
import { PicturePanel } from "./PicturePanel";
import { ResultPanel } from "./ResultPanel";
import { RunHeader } from "./RunHeader";
import classes from "./RunPage.module.css";
import { RunStats } from "./RunStats";
import type { Tab } from "./search";
import { TaskDrawer } from "./TaskDrawer";
import { StatesPanel } from "./time-travel/StatesPanel";
import { Timeline } from "./Timeline";
import { useQuestions } from "./useQuestions";

const RunGraph = lazy(() => import("./RunGraph").then((module) => ({ default: module.RunGraph })));
const route = getRouteApi("/signed-in/runs/$dagId/$runId");

/** One run, live. */
export function RunPage() {
  const { dagId, runId } = route.useParams();
  const run = useRun(dagId, runId);
  const state = run.data?.model.state;
  const missing = run.data === undefined && run.error !== null && asProblem(run.error).status === 404;
  useDocumentTitle(`${state ? `${lookOf(state).label} · ` : ""}${dagId} · LangGraph Flow`);

  return (
    <>
      <Breadcrumbs mb={6} fz="sm">
        <AnchorLink to="/runs" inherit>
          Runs
        </AnchorLink>
        <AnchorLink to="/runs" search={{ dag: dagId }} inherit>
          {dagId}
        </AnchorLink>
      </Breadcrumbs>
      {missing ? (
        <EmptyState icon={IconMapPinOff} title="Run not found" action={<ButtonLink to="/runs">Go to runs</ButtonLink>}>
          It may have been deleted, or belong to someone else.
        </EmptyState>
      ) : null}
      {run.error && !run.data && !missing ? (
        <ProblemAlert error={run.error} onRetry={() => void run.refetch()} />
      ) : null}
      {run.isPending ? (
        <Stack role="status" aria-busy="true" aria-label="Loading the run">
          <Skeleton h={34} w={320} />
          <Skeleton h={72} />
          <Skeleton h={300} />
        </Stack>
      ) : null}
      {run.data ? <Content run={run.data} /> : null}
    </>
  );
}

function Content({ run }: { run: WatchedRun }) {
  const { snapshot, model } = run;
  const { tab, task } = route.useSearch();
  const navigate = route.useNavigate();
  const workflow = useQuery(workflowQuery(snapshot.dag_id));
  const over = !isActive(model.state);
  // Once the run has finished, the snapshot also knows which errors it recovered from, but only of the latest ones.
  const errors: readonly ErrorOut[] = useMemo(
    () =>
      over && !isActive(snapshot.state) && snapshot.errors.length >= model.errors.length
        ? snapshot.errors.toReversed()
        : model.errors,
    [over, snapshot, model.errors],
  );
  const questions = useQuestions(run);
  const result = model.result ?? snapshot.result;
  const pictures = useMemo(() => picturesOf(smallInput(snapshot), result), [snapshot, result]);
  const picturesThere = pictures.length > 0;
  const groups = useMemo(() => groupsOf(model, snapshot.mapped_tasks), [model, snapshot.mapped_tasks]);
  // An instance of a large mapped task may be one that this page has not been told of.
  const unknown = task !== undefined && !model.tasks.has(task) && snapshot.tasks_next !== null;
  const asked = useQuery({ ...instanceQuery(snapshot, task ?? ""), enabled: unknown });
  const shown: Tab = tab ?? (model.state === "failed" ? "errors" : model.state === "success" ? "result" : "agents");
  const openTask = useCallback(
    (key: string | undefined) =>
      void navigate({ search: (before) => ({ ...before, task: key }), replace: true, resetScroll: false }),
    [navigate],
  );

  return (
    <Stack gap="lg">
      <RunHeader run={run} title={workflow.data?.display_name ?? snapshot.dag_id} />
      {over && !isActive(snapshot.state) && snapshot.reason !== null ? (
        <Alert
          color={snapshot.state === "failed" ? "red" : "gray"}
          icon={<IconInfoCircle aria-hidden />}
          title={`Why the run ${snapshot.state === "failed" ? "failed" : "was cancelled"}`}
          style={{ overflowWrap: "anywhere" }}
        >
          {snapshot.reason}
        </Alert>
      ) : null}
      {/* Questions speak for themselves. */}
      {!over && snapshot.reason !== null && questions.open.length === 0 ? (
        <Alert color="yellow" icon={<IconInfoCircle aria-hidden />} title="What the run waits for">
          {snapshot.reason}
        </Alert>
      ) : null}
      <RunStats run={run} />
      <QuestionsPanel questions={questions.shown} waiting={questions.open.length} more={questions.more} />
      <Paper className={classes.graph}>
        {/* Without the graph the rest of the page is as good. */}
        <CatchBoundary getResetKey={() => snapshot.execution_id} errorComponent={GraphProblem}>
          <Suspense fallback={<Skeleton h="100%" />}>
            <RunGraph
              workflow={workflow.data?.tasks ?? null}
              waiting={workflow.isPending}
              model={model}
              groups={groups}
              questions={questions.open}
              onSelect={openTask}
            />
          </Suspense>
        </CatchBoundary>
      </Paper>
      <Tabs
        value={shown}
        onChange={(next) =>
          void navigate({ search: (before) => ({ ...before, tab: next as Tab }), replace: true, resetScroll: false })
        }
        keepMounted={false}
      >
        <Tabs.List mb="md">
          <Tabs.Tab value="agents">Agents</Tabs.Tab>
          <Tabs.Tab value="timeline">Timeline</Tabs.Tab>
          <Tabs.Tab value="states">States</Tabs.Tab>
          <Tabs.Tab
            value="errors"
            rightSection={errors.length > 0 ? <span className={classes.count}>{errors.length}</span> : undefined}
          >
            Errors
          </Tabs.Tab>
          {picturesThere ? <Tabs.Tab value="picture">Picture</Tabs.Tab> : null}
          <Tabs.Tab value="result">Result</Tabs.Tab>
          <Tabs.Tab value="input">Input</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="agents">
          <AgentsPanel run={run} groups={groups} onSelect={openTask} />
        </Tabs.Panel>
        <Tabs.Panel value="timeline">
          <Timeline model={model} groups={groups} queuedAt={snapshot.queued_at} onSelect={openTask} />
        </Tabs.Panel>
        <Tabs.Panel value="states">
          <StatesPanel run={snapshot} model={model} />
        </Tabs.Panel>
        <Tabs.Panel value="errors">
          <ErrorsPanel errors={errors} state={model.state} onSelect={openTask} />
        </Tabs.Panel>
        <Tabs.Panel value="picture">
          <PicturePanel pictures={pictures} />
        </Tabs.Panel>
        <Tabs.Panel value="result">
          <ResultPanel result={result} state={model.state} />
        </Tabs.Panel>
        <Tabs.Panel value="input">
          <InputPanel input={snapshot.input_data} />
        </Tabs.Panel>
      </Tabs>
      <TaskDrawer
        run={snapshot}
        task={task === undefined ? undefined : (model.tasks.get(task) ?? asked.data ?? undefined)}
        onClose={() => openTask(undefined)}
      />
    </Stack>
  );
}

function GraphProblem({ error }: { error: unknown }) {
  return <ProblemAlert error={error} onRetry={() => window.location.reload()} />;
}
