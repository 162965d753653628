import { Button, Group, Text, Title, Tooltip } from "@mantine/core";
import { IconExternalLink, IconPlayerPlay, IconPlayerStop, IconRefresh, IconTimeline } from "@tabler/icons-react";
import { stringify } from "@/shared/api/exact-json";
import type { SnapshotOut } from "@/shared/api/schema";
import { mayChange, READS_ONLY, useMe } from "@/shared/api/session";
import type { WatchedRun } from "@/shared/stream/useRun";
import { ButtonLink } from "@/shared/ui/links";
import { CopyButton } from "@/shared/ui/CopyButton";
import { StateBadge } from "@/shared/ui/StateBadge";
import { isActive } from "@/shared/ui/states";
import { RunActionButton } from "./RunActionButton";
import { ConnectionStatus } from "./ConnectionStatus";
import { isTruncated } from "./large/truncated";
import { ForkedFrom } from "./time-travel/ForkedFrom";
import { userInput } from "@/shared/api/user-input";

/** The run's name and state, and the actions available. */
export function RunHeader({ run: { snapshot, model, connection }, title }: { run: WatchedRun; title: string }) {
  const me = useMe();
  const allowed = mayChange(me.role);
  return (
    <Group component="header" justify="space-between" align="flex-start" gap="md">
      <div style={{ minWidth: 0 }}>
        <Group gap="sm">
          <Title order={1}>{title}</Title>
          <span role="status" aria-label="State of the run">
            <StateBadge state={model.state} size="md" />
          </span>
          <ConnectionStatus connection={connection} />
        </Group>
        <Group gap={4} mt={2} wrap="nowrap">
          <Text c="dimmed" size="sm" className="mono" truncate>
            {snapshot.dag_run_id}
          </Text>
          <CopyButton text={snapshot.dag_run_id} label="Copy run ID" />
        </Group>
        {snapshot.forked_from ? <ForkedFrom run={snapshot} source={snapshot.forked_from} /> : null}
      </div>
      <Group gap="xs">
        <Button
          component="a"
          href={snapshot.airflow_url}
          target="_blank"
          rel="noreferrer"
          variant="default"
          leftSection={<IconExternalLink size={16} aria-hidden />}
        >
          Airflow
        </Button>
        {snapshot.trace_url ? (
          <Button
            component="a"
            href={snapshot.trace_url}
            target="_blank"
            rel="noreferrer"
            variant="default"
            leftSection={<IconTimeline size={16} aria-hidden />}
          >
            Trace
          </Button>
        ) : null}
        {allowed ? (
          <>
            <ButtonLink
              to="/run/$dagId"
              params={{ dagId: snapshot.dag_id }}
              search={again(snapshot)}
              variant="default"
              leftSection={<IconPlayerPlay size={16} aria-hidden />}
            >
              Run again
            </ButtonLink>
            {isActive(model.state) ? (
              <RunActionButton
                run={snapshot}
                change="cancel"
                icon={IconPlayerStop}
                label="Cancel"
                question="Cancel this run?"
                consequence="Its agents abort their model calls, and nothing else starts. You can retry it later, without paying again for what has finished."
              />
            ) : null}
            {model.state === "failed" || model.state === "cancelled" ? (
              <RunActionButton
                run={snapshot}
                change="retry"
                icon={IconRefresh}
                label="Retry"
                question="Retry this run?"
                consequence="Failed tasks resume from their checkpoints. Nodes and agents that had finished aren't run, or paid for, again."
              />
            ) : null}
          </>
        ) : (
          <Tooltip label={READS_ONLY} multiline w={260}>
            <Text size="xs" c="dimmed" tabIndex={0} style={{ cursor: "help" }}>
              Read-only
            </Text>
          </Tooltip>
        )}
      </Group>
    </Group>
  );
}

/** The same input; one that is too long for a URL is read by the form itself. */
function again({ dag_run_id: from, input_data: input }: SnapshotOut) {
  if (isTruncated(input)) return { from };
  const own = userInput(input);
  return stringify(own).length < 1_500 ? { input: own } : { from };
}
