import { DEFAULT_MODE, type Definition } from "./definition";

/** A member of the team: an agent, the supervisor or the summary. */
export interface Member {
  id: string;
  name: string;
  kind: string;
  model: string | null;
  /** Whether its failure fails the task. */
  required: boolean;
  column: number;
  row: number;
}

export interface Team {
  members: Member[];
  /** The flow of results, from id to id. */
  links: { from: string; to: string; both: boolean }[];
  columns: number;
  rows: number;
}

/** Lays out the team and its flow of results from left to right. */
export function teamOf(definition: Definition): Team {
  const agents = definition.agents ?? [];
  const mode = definition.orchestration_mode ?? DEFAULT_MODE;
  const links: Team["links"] = [];
  const idOf = new Map(agents.map((agent, index) => [agent.name, `agent-${index}`]));
  const before = agents.map((agent, index) => {
    if (mode === "graph") return (agent.depends_on ?? []).flatMap((name) => idOf.get(name) ?? []);
    return mode === "sequential" && index > 0 ? [`agent-${index - 1}`] : [];
  });
  const first = mode === "supervisor" ? 1 : 0;
  const columns = layers(before).map((layer) => layer + first);
  const members: Member[] = agents.map((agent, index) => ({
    id: `agent-${index}`,
    name: agent.name,
    kind: agent.type ?? (agent.graph ? `graph ${agent.graph}` : "agent"),
    model: agent.model ?? null,
    required: agent.required !== false,
    column: columns[index] ?? 0,
    row: columns.slice(0, index).filter((column) => column === columns[index]).length,
  }));
  before.forEach((ids, index) => ids.forEach((from) => links.push({ from, to: `agent-${index}`, both: false })));
  if (mode === "supervisor" && agents.length > 0) {
    for (const member of members) links.push({ from: "supervisor", to: member.id, both: true });
    const model = definition.supervisor?.model;
    members.unshift({
      id: "supervisor",
      name: "Supervisor",
      kind: "chooses the next agent",
      model: typeof model === "string" ? model : null,
      required: true,
      column: 0,
      row: 0,
    });
  }
  if (agents.length > 0 && definition.synthesis !== false) {
    const last = Math.max(0, ...members.map((member) => member.column)) + 1;
    const passedOn = new Set(links.filter((link) => !link.both).map((link) => link.from));
    for (const member of members) {
      if (member.id !== "supervisor" && !passedOn.has(member.id)) {
        links.push({ from: member.id, to: "synthesis", both: false });
      }
    }
    const model = typeof definition.synthesis === "object" ? definition.synthesis.model : null;
    members.push({
      id: "synthesis",
      name: "Summary",
      kind: "summarises the results",
      model: typeof model === "string" ? model : null,
      required: true,
      column: last,
      row: 0,
    });
  }
  return {
    members,
    links,
    columns: Math.max(0, ...members.map((member) => member.column)) + 1,
    rows: Math.max(0, ...members.map((member) => member.row)) + 1,
  };
}

/** Each agent's distance from those without dependencies. A cycle, which the API rejects, is cut somewhere. */
function layers(before: string[][]): number[] {
  const indexOf = (id: string) => Number(id.slice("agent-".length));
  const depth = (index: number, seen: readonly number[]): number =>
    seen.includes(index)
      ? 0
      : Math.max(0, ...(before[index] ?? []).map((id) => depth(indexOf(id), [...seen, index]) + 1));
  return before.map((_, index) => depth(index, []));
}
