import { queryOptions } from "@tanstack/react-query";
import { answer, api } from "./client";

/** A template: its active version or, if it is retired, the latest. */
export const templateQuery = (name: string) =>
  queryOptions({
    queryKey: ["templates", "one", name],
    queryFn: () => answer(api.GET("/templates/{name}", { params: { path: { name } } })),
  });

/** A version. Its definition never changes; only the times when it was active do. */
export const versionQuery = (name: string, version: number) =>
  queryOptions({
    queryKey: ["templates", "version", name, version],
    queryFn: () => answer(api.GET("/templates/{name}/versions/{version}", { params: { path: { name, version } } })),
  });

/** The keys of a definition that configure the agents; a run of a template can't override them. */
export const TEAM_KEYS = [
  "agents",
  "orchestration_mode",
  "synthesis",
  "supervisor",
  "max_steps",
  "error_policy",
] as const;

/** The fields of a run's input that a definition's agents refer to with `{"$input": "name"}`. */
export function askedFor(definition: object): string[] {
  const found = new Set<string>();
  const look = (value: unknown): void => {
    const field = referenceOf(value);
    if (field !== null) found.add(field);
    else if (Array.isArray(value)) value.forEach(look);
    else if (typeof value === "object" && value !== null) Object.values(value).forEach(look);
  };
  const agents = "agents" in definition && Array.isArray(definition.agents) ? (definition.agents as unknown[]) : [];
  for (const agent of agents) {
    if (typeof agent === "object" && agent !== null && "input_data" in agent) look(agent.input_data);
  }
  return [...found];
}

/** The field of the run's input that a value refers to; null if it is a plain value. */
export function referenceOf(value: unknown): string | null {
  if (typeof value !== "object" || value === null || Object.keys(value).length !== 1) return null;
  const field = "$input" in value ? value.$input : null;
  return typeof field === "string" ? field : null;
}
