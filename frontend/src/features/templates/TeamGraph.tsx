import { ScrollArea } from "@mantine/core";
import { IconRobot, IconSitemap, IconSum } from "@tabler/icons-react";
import { useId, useMemo } from "react";
import type { Definition } from "./definition";
import { type Member, type Team, teamOf } from "./team-layout";
import classes from "./TeamGraph.module.css";

const WIDTH = 186;
const HEIGHT = 62;
const ACROSS = 74;
const DOWN = 16;

/** The team's agents from left to right, and whose results each one gets. */
export function TeamGraph({ definition }: { definition: Definition }) {
  const team = useMemo(() => teamOf(definition), [definition]);
  const marker = useId();
  const height = team.rows * (HEIGHT + DOWN) - DOWN;
  const width = team.columns * (WIDTH + ACROSS) - ACROSS;
  const inColumn = (column: number) => team.members.filter((member) => member.column === column).length;
  // Columns with fewer members are centred.
  const top = (member: Member) =>
    (height - (inColumn(member.column) * (HEIGHT + DOWN) - DOWN)) / 2 + member.row * (HEIGHT + DOWN);
  const left = (member: Member) => member.column * (WIDTH + ACROSS);
  const byId = new Map(team.members.map((member) => [member.id, member]));
  return (
    <ScrollArea
      type="auto"
      className={classes.box}
      viewportProps={{ tabIndex: 0, role: "group", "aria-label": `How the agents work together: ${spoken(team)}` }}
    >
      <div className={classes.canvas} style={{ width, height }}>
        <svg width={width} height={height} className={classes.links} aria-hidden>
          <defs>
            <marker
              id={marker}
              viewBox="0 0 8 8"
              refX="7"
              refY="4"
              markerWidth="7"
              markerHeight="7"
              orient="auto-start-reverse"
            >
              <path d="M0 .5 7.5 4 0 7.5z" />
            </marker>
          </defs>
          {team.links.map(({ from, to, both }) => {
            const [a, b] = [byId.get(from), byId.get(to)];
            if (!a || !b) return null;
            const [x1, y1, x2, y2] = [left(a) + WIDTH + 3, top(a) + HEIGHT / 2, left(b) - 3, top(b) + HEIGHT / 2];
            const bend = Math.min(60, (x2 - x1) / 2);
            return (
              <path
                key={`${from}/${to}`}
                d={`M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`}
                markerEnd={`url(#${marker})`}
                markerStart={both ? `url(#${marker})` : undefined}
              />
            );
          })}
        </svg>
        {team.members.map((member) => (
          <div
            key={member.id}
            className={classes.member}
            data-own={member.id === "synthesis" || member.id === "supervisor" || undefined}
            data-optional={!member.required || undefined}
            style={{ left: left(member), top: top(member), width: WIDTH, height: HEIGHT }}
          >
            <Icon id={member.id} />
            <div>
              <b>{member.name}</b>
              <span>
                {member.kind}
                {member.required ? "" : ", optional"}
              </span>
              {member.model ? <span className="mono">{member.model}</span> : null}
            </div>
          </div>
        ))}
      </div>
    </ScrollArea>
  );
}

function Icon({ id }: { id: string }) {
  const Shown = id === "synthesis" ? IconSum : id === "supervisor" ? IconSitemap : IconRobot;
  return <Shown size={18} stroke={1.7} aria-hidden />;
}

function spoken({ members, links }: Team): string {
  const name = (id: string) => members.find((member) => member.id === id)?.name ?? "";
  return members
    .map((member) => {
      const from = links.filter((link) => link.to === member.id).map((link) => name(link.from));
      return from.length > 0 ? `${member.name} after ${from.join(" and ")}` : member.name;
    })
    .join("; ");
}
