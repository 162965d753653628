import { Group, Text, Title } from "@mantine/core";
import type { ReactNode } from "react";
import { isLosslessNumber, stringify } from "@/shared/api/exact-json";
import { referenceOf } from "@/shared/api/templates";
import classes from "./AgentList.module.css";
import type { Agent } from "./definition";

/** Keys that are shown in the graph above or in the agent's heading. */
const SHOWN = new Set(["name", "type", "graph", "model", "required", "depends_on"]);

const LABELS: Record<string, string> = {
  input_data: "Input",
  description: "For the supervisor",
  system_prompt: "System prompt",
  output_schema: "Output schema",
  error_policy: "Error policy",
};

/** Each agent's configuration. */
export function AgentList({ agents }: { agents: Agent[] }) {
  return (
    <ul className={classes.agents} aria-label="Agents">
      {agents.map((agent) => (
        <li key={agent.name} className={classes.agent}>
          <Group gap={8} align="baseline">
            <Title order={3}>{agent.name}</Title>
            <Text size="xs" c="dimmed">
              {agent.type ?? `graph ${agent.graph ?? ""}`}
              {agent.model ? `, ${agent.model}` : ""}
              {agent.required === false ? ", optional" : ""}
            </Text>
          </Group>
          <dl className={classes.keys}>
            {agent.depends_on && agent.depends_on.length > 0 ? (
              <Entry name="Waits for">{agent.depends_on.join(", ")}</Entry>
            ) : null}
            {Object.entries(agent)
              .filter(([key, value]) => !SHOWN.has(key) && value != null)
              .map(([key, value]) =>
                key === "input_data" ? (
                  Object.entries(value as Record<string, unknown>).map(([field, given]) => (
                    <Entry key={field} name={`Input ${field}`}>
                      <Given value={given} />
                    </Entry>
                  ))
                ) : (
                  <Entry key={key} name={LABELS[key] ?? key.replaceAll("_", " ")}>
                    <Given value={value} />
                  </Entry>
                ),
              )}
          </dl>
        </li>
      ))}
    </ul>
  );
}

function Entry({ name, children }: { name: string; children: ReactNode }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  );
}

function Given({ value }: { value: unknown }) {
  const field = referenceOf(value);
  if (field !== null) {
    return (
      <>
        from the run: <code className={classes.field}>{field}</code>
      </>
    );
  }
  if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") return String(value);
  if (isLosslessNumber(value)) return value.value;
  if (Array.isArray(value) && value.every((one) => typeof one === "string")) return value.join(" · ");
  return <pre className={classes.json}>{stringify(value, 2)}</pre>;
}
