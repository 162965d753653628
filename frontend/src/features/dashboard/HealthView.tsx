import { Badge, Group, List, Paper, Skeleton, Stack, Text, Title } from "@mantine/core";
import type { UseQueryResult } from "@tanstack/react-query";
import type { ComponentHealth, SystemHealth } from "@/shared/api/schema";
import { ago, fullMoment, latency } from "@/shared/format/times";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { StateBadge } from "@/shared/ui/StateBadge";
import { useNow } from "@/shared/ui/useNow";
import { adviceFor, bySeverity, partOf } from "./advice";
import classes from "./HealthView.module.css";

const SENTENCES = {
  healthy: "All systems are working.",
  degraded: "Runs continue, but something that they or their viewers use isn't working.",
  unhealthy: "Something that runs need isn't working.",
};

/** The health of each component, and what to do about it. */
export function HealthView({ health }: { health: UseQueryResult<SystemHealth> }) {
  const now = useNow(5_000);
  if (health.isPending)
    return <Skeleton h={420} radius="lg" role="status" aria-busy="true" aria-label="Loading system health" />;
  const { data, error } = health;
  return (
    <Stack gap="md">
      {error ? <ProblemAlert error={error} onRetry={() => void health.refetch()} /> : null}
      {data ? (
        <>
          <Group gap="sm">
            <StateBadge state={data.status} size="md" />
            <Text>{SENTENCES[data.status]}</Text>
            <Text size="xs" c="dimmed" ml="auto">
              Checked {ago(data.checked_at, now)}
            </Text>
          </Group>
          <Paper component="ul" className={classes.parts} aria-label="Components">
            {bySeverity(data.components).map(([name, part]) => (
              <Part key={name} name={name} part={part} now={now} />
            ))}
          </Paper>
        </>
      ) : null}
    </Stack>
  );
}

function Part({ name, part, now }: { name: string; part: ComponentHealth; now: number }) {
  const { label, purpose } = partOf(name);
  const advice = adviceFor(name, part);
  return (
    <li className={classes.part}>
      <div className={classes.name}>
        <Group gap={8}>
          <Title order={2} size="h3">
            {label}
          </Title>
          {part.required ? (
            <Badge size="sm" variant="default">
              required
            </Badge>
          ) : null}
        </Group>
        <Text size="xs" c="dimmed">
          {purpose}
        </Text>
      </div>
      <div>
        <StateBadge state={part.status} />
      </div>
      <div className={classes.told}>
        {part.reason ? <Text className={classes.reason}>{sentence(part.reason)}</Text> : null}
        {part.latency_ms == null ? null : (
          <Text size="sm" c="dimmed" className="tabular">
            Responded in {latency(part.latency_ms)}
          </Text>
        )}
        {part.since ? (
          <Text c="dimmed" title={fullMoment(part.since)}>
            Since {ago(part.since, now).replace(" ago", "")}
          </Text>
        ) : null}
        {advice ? (
          <>
            {advice.meanwhile ? <Text>{advice.meanwhile}</Text> : null}
            <Text fw={550} mt={6} size="sm">
              What to do
            </Text>
            <List size="sm" spacing={2}>
              {advice.steps.map((step) => (
                <List.Item key={step}>{step}</List.Item>
              ))}
            </List>
          </>
        ) : null}
      </div>
    </li>
  );
}

function sentence(reason: string): string {
  const text = reason.charAt(0).toUpperCase() + reason.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
