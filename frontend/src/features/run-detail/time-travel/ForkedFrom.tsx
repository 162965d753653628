import { Group, Text } from "@mantine/core";
import { IconGitFork } from "@tabler/icons-react";
import type { ForkedFrom as Source, SnapshotOut } from "@/shared/api/schema";
import { AnchorLink } from "@/shared/ui/links";

/** Where a forked run comes from, with links to that run and to a comparison. */
export function ForkedFrom({ run, source }: { run: SnapshotOut; source: Source }) {
  const place = [source.agent ?? source.task_id, source.node].filter(Boolean).join(", ");
  return (
    <Group gap={6} mt={4} role="note" aria-label="Fork">
      <IconGitFork size={15} aria-hidden />
      <Text size="sm">
        Forked from{" "}
        <AnchorLink
          to="/runs/$dagId/$runId"
          params={{ dagId: source.dag_id, runId: source.dag_run_id }}
          inherit
          style={{ overflowWrap: "anywhere" }}
        >
          {source.dag_run_id}
        </AnchorLink>{" "}
        ({place}
        {source.checkpoint_id === null ? ", from the start" : ""})
      </Text>
      <AnchorLink
        to="/compare"
        search={{ left: `${source.dag_id}/${source.dag_run_id}`, right: `${run.dag_id}/${run.dag_run_id}` }}
        size="sm"
      >
        Compare
      </AnchorLink>
    </Group>
  );
}
