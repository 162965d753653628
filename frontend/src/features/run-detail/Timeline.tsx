import { Paper, Text, Tooltip, UnstyledButton } from "@mantine/core";
import { IconTimeline } from "@tabler/icons-react";
import { count } from "@/shared/format/amounts";
import { duration, elapsed, fullMoment } from "@/shared/format/times";
import type { RunModel, Try } from "@/shared/stream/run-model";
import { EmptyState } from "@/shared/ui/EmptyState";
import { StateBadge } from "@/shared/ui/StateBadge";
import { isActive, lookOf } from "@/shared/ui/states";
import { useNow } from "@/shared/ui/useNow";
import { type Group, GROUPED } from "./large/groups";
import { spanOf, tickLabel, ticksOf } from "./time-axis";
import classes from "./Timeline.module.css";

interface Props {
  model: RunModel;
  groups: ReadonlyMap<string, Group>;
  queuedAt: string;
  onSelect: (task: string) => void;
}

/** When each try of each task ran. */
export function Timeline({ model, groups, queuedAt, onSelect }: Props) {
  const active = isActive(model.state);
  const now = useNow(500, active);
  const all = [...model.tasks.values()].sort((a, b) => begin(a.tries) - begin(b.tries) || a.key.localeCompare(b.key));
  const tries = all.flatMap((task) => task.tries);
  // Of a group the first few; the Agents tab lists all.
  const drawn = new Map<string, number>();
  const tasks = all.filter(({ taskId }) => {
    const before = drawn.get(taskId) ?? 0;
    drawn.set(taskId, before + 1);
    return !groups.has(taskId) || before < GROUPED;
  });
  const span = spanOf([queuedAt, model.startedAt], tries, active ? now : null, model.finishedAt);
  if (span === null || tries.length === 0) {
    return (
      <Paper>
        <EmptyState icon={IconTimeline} title="Nothing has run yet">
          Tasks appear here as soon as they start.
        </EmptyState>
      </Paper>
    );
  }
  const place = (time: number) => `${((time - span.from) / (span.to - span.from)) * 100}%`;
  return (
    <Paper className={classes.timeline}>
      <div className={classes.axis} aria-hidden>
        {ticksOf(span).map((tick) => (
          <span key={tick} style={{ left: place(span.from + tick * 1000) }}>
            {tickLabel(tick)}
          </span>
        ))}
      </div>
      <ul className={classes.rows} aria-label="Tasks and tries">
        {tasks.map((task) => (
          <li key={task.key} className={classes.row}>
            <UnstyledButton className={classes.name} onClick={() => onSelect(task.key)} title={`Log of ${task.key}`}>
              <StateBadge state={task.state} iconOnly />
              <span>{task.key}</span>
            </UnstyledButton>
            <div className={classes.track}>
              {ticksOf(span).map((tick) => (
                <i key={tick} style={{ left: place(span.from + tick * 1000) }} aria-hidden />
              ))}
              {task.tries.map((one, index) => {
                if (one.startedAt === null) return null;
                const from = Date.parse(one.startedAt);
                const to = endOf(one, task.tries[index + 1], active ? now : null) ?? from;
                const seconds = duration((to - from) / 1000);
                const said = `${task.key}, try ${one.number}: ${lookOf(one.state).label}, ${seconds}`;
                return (
                  <Tooltip key={one.number} label={`${said}, from ${fullMoment(one.startedAt)}`}>
                    <div
                      className={classes.bar}
                      data-tone={lookOf(one.state).tone}
                      role="img"
                      aria-label={said}
                      style={{ left: place(from), width: `max(4px, calc(${place(to)} - ${place(from)}))` }}
                    >
                      {task.tries.length > 1 ? <span>{one.number}</span> : null}
                    </div>
                  </Tooltip>
                );
              })}
            </div>
            <Text size="sm" c="dimmed" ta="right" className="tabular">
              {duration(total(task.tries, now))}
            </Text>
          </li>
        ))}
      </ul>
      {[...groups.values()].map(({ taskId, total: instances }) => (
        <Text key={taskId} size="sm" c="dimmed" mt={4}>
          {taskId}: the first {GROUPED} of {count(instances)} instances. The Agents tab lists all.
        </Text>
      ))}
    </Paper>
  );
}

function begin(tries: readonly Try[]): number {
  const first = tries.find((one) => one.startedAt !== null)?.startedAt;
  return first ? Date.parse(first) : Infinity;
}

/** When a try ended. Airflow doesn't report it for a try that is retried; it ended before the next one started. */
function endOf(one: Try, next: Try | undefined, now: number | null): number | null {
  if (one.finishedAt) return Date.parse(one.finishedAt);
  if (next?.startedAt) return Date.parse(next.startedAt);
  return lookOf(one.state).tone === "live" ? now : null;
}

function total(tries: readonly Try[], now: number): number | null {
  const all = tries.map((one, index) => {
    const end = endOf(one, tries[index + 1], now);
    return elapsed(
      one.startedAt,
      end === null ? null : new Date(end).toISOString(),
      one.startedAt ? Date.parse(one.startedAt) : 0,
    );
  });
  const known = all.filter((one) => one !== null);
  return known.length > 0 ? known.reduce((a, b) => a + b, 0) : null;
}
