import { Button, Group, Paper, Text, Title, Tooltip } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { Link } from "@tanstack/react-router";
import { useId } from "react";
import type { ErrorGroup } from "@/shared/api/schema";
import { count, percent } from "@/shared/format/amounts";
import { ago } from "@/shared/format/times";
import rows from "@/shared/ui/rows.module.css";
import { useNow } from "@/shared/ui/useNow";
import type { RunsFilters } from "./drill-down";
import classes from "./ErrorGroups.module.css";
import { type Behind, dashboardSearch } from "./search";

/** Groups shown initially. */
const SHOWN = 6;

interface Props {
  title: string;
  groups: ErrorGroup[];
  label: (name: string | null) => string;
  meaning?: (name: string | null) => string;
  /** The runs that a row opens, … */
  behind?: (name: string | null) => Behind | null;
  /** … or the filters of the run list that it opens. */
  runs?: (name: string | null) => RunsFilters;
}

/** Errors grouped by a common property, largest groups first; each group opens its runs. */
export function ErrorGroups({ title, groups, label, meaning, behind, runs }: Props) {
  const id = useId();
  const now = useNow(30_000);
  const [all, { toggle }] = useDisclosure();
  const most = Math.max(1, ...groups.map((group) => group.count));
  return (
    <Paper component="section" aria-labelledby={id} p="md">
      <Group justify="space-between" mb="xs">
        <Title order={2} size="h3" id={id}>
          {title}
        </Title>
        <Group gap={10}>
          <span className={classes.key} data-kind="lost">
            not recovered
          </span>
          <span className={classes.key} data-kind="over">
            recovered
          </span>
        </Group>
      </Group>
      <ul className={rows.list}>
        {groups.slice(0, all ? undefined : SHOWN).map((group) => (
          <li key={group.name ?? ""} className={`${rows.row} ${rows.item}`}>
            <div className={classes.head}>
              <Target group={group} label={label(group.name)} behind={behind} runs={runs} />
              <span className={classes.count}>
                {count(group.count)}
                <Text span inherit c="dimmed">
                  {percent(group.share)}
                </Text>
              </span>
            </div>
            <Tooltip label={`${count(group.unrecovered)} not recovered, ${count(group.recovered)} recovered`}>
              <div className={classes.track} aria-hidden>
                <span data-kind="lost" style={{ width: `${(group.unrecovered / most) * 100}%` }} />
                <span data-kind="over" style={{ width: `${(group.recovered / most) * 100}%` }} />
              </div>
            </Tooltip>
            <Text size="xs" c="dimmed" lineClamp={2}>
              {meaning?.(group.name) ? `${meaning(group.name)} ` : ""}
              Latest {ago(group.latest, now)}.
            </Text>
          </li>
        ))}
      </ul>
      {groups.length > SHOWN ? (
        <Button variant="subtle" color="gray" size="compact-sm" mt={6} onClick={toggle} aria-expanded={all}>
          {all ? "Show less" : `Show all ${groups.length}`}
        </Button>
      ) : null}
    </Paper>
  );
}

function Target({ group, label, behind, runs }: { group: ErrorGroup; label: string } & Pick<Props, "runs" | "behind">) {
  const whose = behind?.(group.name) ?? null;
  const spoken = `${label}: ${count(group.count)} errors, ${count(group.unrecovered)} not recovered; show their runs`;
  if (whose) {
    return (
      <Link
        to="/dashboard"
        search={(known) => dashboardSearch({ ...known, behind: whose })}
        className={`${classes.name} ${rows.link}`}
        aria-label={spoken}
      >
        {label}
      </Link>
    );
  }
  if (runs) {
    return (
      <Link to="/runs" search={runs(group.name)} className={`${classes.name} ${rows.link}`} aria-label={spoken}>
        {label}
      </Link>
    );
  }
  return <span className={classes.name}>{label}</span>;
}
