import { Badge, Group, Paper, SegmentedControl, Stack, Text, Title } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { rounded, stringify } from "@/shared/api/exact-json";
import { askedFor } from "@/shared/api/templates";
import { cost, count } from "@/shared/format/amounts";
import { JsonView } from "@/shared/ui/JsonView";
import { AgentList } from "./AgentList";
import { DEFAULT_MODE, type Definition, MODES } from "./definition";
import classes from "./DefinitionView.module.css";
import { TeamGraph } from "./TeamGraph";

interface Props {
  title: string;
  note: string | null;
  definition: Definition;
}

/** A version's definition: its agents, their order and their input; or the JSON itself. */
export function DefinitionView({ title, note, definition }: Props) {
  const [as, setAs] = useState("overview");
  const agents = definition.agents ?? [];
  return (
    <Paper component="section" aria-labelledby="definition" p="md">
      <Group justify="space-between" mb="md">
        <Group gap="xs">
          <Title order={2} size="h3" id="definition">
            {title}
          </Title>
          {note ? (
            <Badge color="gray" variant="light">
              {note}
            </Badge>
          ) : null}
        </Group>
        <SegmentedControl
          size="xs"
          aria-label="View"
          data={[
            { value: "overview", label: "Overview" },
            { value: "json", label: "JSON" },
          ]}
          value={as}
          onChange={setAs}
        />
      </Group>
      {as === "json" ? (
        <JsonView value={definition} label="the definition" />
      ) : (
        <Stack gap="lg">
          <Facts definition={rounded(definition) as Definition} input={definition.input_data} />
          {agents.length > 0 ? (
            <>
              <TeamGraph definition={definition} />
              <AgentList agents={agents} />
            </>
          ) : (
            <Text c="dimmed">This workflow&apos;s own tasks do the work; it accepts no agents from a template.</Text>
          )}
        </Stack>
      )}
    </Paper>
  );
}

function Facts({ definition, input }: { definition: Definition; input: Definition["input_data"] }) {
  const { budget, orchestration_mode: mode } = definition;
  const limits = [
    ...(budget?.max_cost_usd == null ? [] : [cost(budget.max_cost_usd)]),
    ...(budget?.max_tokens == null ? [] : [`${count(budget.max_tokens)} tokens`]),
    ...(budget?.max_steps == null ? [] : [`${count(budget.max_steps)} steps`]),
  ];
  const asked = askedFor(definition).filter((field) => input?.[field] === undefined);
  return (
    <dl className={classes.facts}>
      <Fact name="Workflow">{definition.dag_id}</Fact>
      {definition.agents ? <Fact name="Orchestration">{MODES[mode ?? DEFAULT_MODE] ?? mode}</Fact> : null}
      <Fact name="Model">
        {definition.model ? <span className="mono">{definition.model}</span> : "The default of the user who runs it"}
      </Fact>
      <Fact name="Budget per run">{limits.length > 0 ? limits.join(", ") : "The default of the user who runs it"}</Fact>
      {definition.max_steps === undefined ? null : (
        <Fact name="Supervisor's calls">at most {count(definition.max_steps)}</Fact>
      )}
      {asked.length > 0 ? (
        <Fact name="Required input">
          {asked.map((field) => (
            <code key={field} className={classes.field}>
              {field}
            </code>
          ))}
        </Fact>
      ) : null}
      {Object.entries(input ?? {}).map(([field, value]) => (
        <Fact
          key={field}
          name={
            <>
              Input <code className={classes.field}>{field}</code>
            </>
          }
        >
          {typeof value === "string" ? value : <code className="mono">{stringify(value)}</code>}
        </Fact>
      ))}
    </dl>
  );
}

function Fact({ name, children }: { name: ReactNode; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
