import {
  Alert,
  Breadcrumbs,
  Button,
  Collapse,
  Group,
  NumberInput,
  Paper,
  Skeleton,
  Stack,
  Text,
  TextInput,
} from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconChevronDown, IconLock, IconPlayerPause, IconPlayerPlay } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { lazy, Suspense, useMemo, useState } from "react";
import { asProblem } from "@/shared/api/problem";
import { mayChange, READS_ONLY, useMe } from "@/shared/api/session";
import { templateQuery, versionQuery } from "@/shared/api/templates";
import { inputQuery, workflowQuery } from "@/shared/api/workflows";
import { ScheduleSection } from "@/shared/schedule/ScheduleSection";
import { AnchorLink } from "@/shared/ui/links";
import { PageHeader } from "@/shared/ui/PageHeader";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { atTheirFields } from "@/shared/form/server-faults";
import { referenceParts, templateSchema } from "./template-form";
import { TemplateNotice } from "./TemplateNotice";
import { type Options, useStartRun } from "./useStartRun";

const InputForm = lazy(() => import("@/shared/form/InputForm").then((module) => ({ default: module.InputForm })));
const route = getRouteApi("/signed-in/run/$dagId");

/** Starts a run of a workflow. */
export function StartPage() {
  const { dagId } = route.useParams();
  const search = route.useSearch();
  const me = useMe();
  const workflow = useQuery(workflowQuery(dagId));
  const { name, version } = referenceParts(search.template ?? "");
  const active = useQuery({ ...templateQuery(name), enabled: name !== "" && version === null });
  const certain = useQuery({ ...versionQuery(name, version ?? 1), enabled: version !== null });
  const template = version === null ? active : certain;
  const definition = name === "" ? undefined : template.data?.definition;
  const earlier = useQuery({ ...inputQuery(dagId, search.from ?? ""), enabled: search.from !== undefined });
  const ready =
    workflow.data !== undefined &&
    (name === "" || definition !== undefined) &&
    (search.from === undefined || !earlier.isPending);
  const [given, setInput] = useState<Record<string, unknown> | null>(search.input ?? null);
  const input = given ?? earlier.data ?? (definition?.input_data as Record<string, unknown> | undefined) ?? {};
  const [options, setOptions] = useState<Options>({ model: search.model, user: search.user });
  const [optionsOpen, { toggle }] = useDisclosure(search.model !== undefined || search.user !== undefined);
  const inputSchema = useMemo(() => {
    const own = workflow.data?.input_schema;
    return own && definition ? templateSchema(own, definition) : own;
  }, [workflow.data, definition]);
  const start = useStartRun(dagId, search.template);

  const problem = start.error ? asProblem(start.error) : null;
  const faults = useMemo(() => atTheirFields(problem?.faults ?? [], INPUT), [problem]);
  const ownFault = (pointer: string) => problem?.faults.find((fault) => fault.pointer === pointer)?.detail;
  const known = (pointer: string) => pointer.startsWith(`${INPUT}/`) || OPTIONS.includes(pointer);
  const above = problem !== null && (problem.faults.length === 0 || !problem.faults.every((one) => known(one.pointer)));
  const allowed = mayChange(me.role);

  return (
    <>
      <Breadcrumbs mb={6} fz="sm">
        <AnchorLink to="/run" inherit>
          Workflows
        </AnchorLink>
        <Text inherit c="dimmed">
          {dagId}
        </Text>
      </Breadcrumbs>
      <PageHeader title={workflow.data?.display_name ?? dagId} subtitle={workflow.data?.description} />
      <Stack maw={720} gap="md">
        {workflow.isError ? <ProblemAlert error={workflow.error} onRetry={() => void workflow.refetch()} /> : null}
        {template.isError ? <ProblemAlert error={template.error} onRetry={() => void template.refetch()} /> : null}
        {earlier.isError ? <ProblemAlert error={earlier.error} onRetry={() => void earlier.refetch()} /> : null}
        {!ready && !workflow.isError && !template.isError ? <FormSkeleton /> : null}
        {allowed ? null : (
          <Alert color="gray" icon={<IconLock aria-hidden />} title="Read-only">
            {READS_ONLY}
          </Alert>
        )}
        {workflow.data?.paused ? (
          <Alert color="yellow" icon={<IconPlayerPause aria-hidden />} title="This workflow is paused">
            Unpause it in Airflow to start runs.
          </Alert>
        ) : null}
        {workflow.data?.import_error ? (
          <Alert color="red" title="This workflow can't be run">
            Its file doesn't load: {workflow.data.import_error}
          </Alert>
        ) : null}
        {name !== "" && template.data ? <TemplateNotice template={template.data} /> : null}
        {above ? <ProblemAlert error={problem} without={known} /> : null}
        {ready ? (
          <Paper p="lg">
            <Suspense fallback={<FormSkeleton />}>
              <InputForm
                inputSchema={inputSchema ?? {}}
                value={input}
                onChange={setInput}
                onSubmit={(value) => start.mutate({ input: value, options })}
                faults={faults}
                disabled={start.isPending || !allowed}
              >
                <div>
                  <Button
                    type="button"
                    variant="subtle"
                    color="gray"
                    size="xs"
                    mt="md"
                    px={6}
                    ml={-6}
                    onClick={toggle}
                    aria-expanded={optionsOpen}
                    rightSection={
                      <IconChevronDown size={14} aria-hidden style={{ rotate: optionsOpen ? "180deg" : undefined }} />
                    }
                  >
                    More options
                  </Button>
                </div>
                <Collapse expanded={optionsOpen}>
                  <Stack gap="sm" pt="xs">
                    <TextInput
                      label="Model"
                      description="For agents whose task names no model. If empty, your default applies"
                      placeholder="openai:gpt-4.1-mini"
                      value={options.model ?? ""}
                      error={ownFault("/model")}
                      onChange={(event) => setOptions({ ...options, model: event.currentTarget.value })}
                    />
                    <Group grow align="flex-start">
                      <NumberInput
                        label="Cost limit"
                        description="US dollars for the whole run"
                        prefix="$"
                        min={0}
                        decimalScale={4}
                        value={options.maxCost ?? ""}
                        error={ownFault("/budget/max_cost_usd")}
                        onChange={(value) => setOptions({ ...options, maxCost: numberOf(value) })}
                      />
                      <NumberInput
                        label="Token limit"
                        description="Input and output tokens of the whole run"
                        suffix=" tokens"
                        min={0}
                        allowDecimal={false}
                        thousandSeparator=","
                        value={options.maxTokens ?? ""}
                        error={ownFault("/budget/max_tokens")}
                        onChange={(value) => setOptions({ ...options, maxTokens: numberOf(value) })}
                      />
                    </Group>
                    <TextInput
                      label="On behalf of"
                      description="The user the run is for, if not you"
                      placeholder={me.user_id}
                      value={options.user ?? ""}
                      error={ownFault("/user_id")}
                      onChange={(event) => setOptions({ ...options, user: event.currentTarget.value })}
                    />
                  </Stack>
                </Collapse>
                {allowed ? (
                  <Button
                    type="submit"
                    mt="lg"
                    loading={start.isPending}
                    leftSection={<IconPlayerPlay size={16} aria-hidden />}
                  >
                    Run
                  </Button>
                ) : null}
              </InputForm>
            </Suspense>
          </Paper>
        ) : null}
        {ready && name === "" ? (
          <ScheduleSection target={{ kind: "workflow", name: dagId }} inputSchema={workflow.data.input_schema} />
        ) : null}
      </Stack>
    </>
  );
}

const INPUT = "/input_data";
const OPTIONS = ["/model", "/user_id", "/budget/max_cost_usd", "/budget/max_tokens"];

function numberOf(value: string | number): number | undefined {
  return typeof value === "number" ? value : undefined;
}

function FormSkeleton() {
  return (
    <Stack role="status" aria-busy="true" aria-label="Loading the form">
      <Skeleton h={16} w={120} />
      <Skeleton h={72} />
      <Skeleton h={16} w={90} />
      <Skeleton h={168} />
    </Stack>
  );
}
