import { Badge, Group, Paper, SimpleGrid, Skeleton, Text } from "@mantine/core";
import { IconChevronRight, IconPlayerPause, IconSitemapOff } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { WorkflowOut } from "@/shared/api/schema";
import { mayChange, READS_ONLY, useMe } from "@/shared/api/session";
import { workflowsQuery } from "@/shared/api/workflows";
import { EmptyState } from "@/shared/ui/EmptyState";
import { PageHeader } from "@/shared/ui/PageHeader";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import classes from "./WorkflowsPage.module.css";

/** Lists the workflows that can be run. */
export function WorkflowsPage() {
  const me = useMe();
  const workflows = useQuery(workflowsQuery);
  return (
    <>
      <PageHeader
        title="Run a workflow"
        subtitle={mayChange(me.role) ? "Choose a workflow; its form asks for the input it needs." : READS_ONLY}
      />
      {workflows.isError ? <ProblemAlert error={workflows.error} onRetry={() => void workflows.refetch()} /> : null}
      {workflows.isPending ? (
        <SimpleGrid cols={{ base: 1, md: 2 }} role="status" aria-busy="true" aria-label="Loading workflows">
          <Skeleton h={104} />
          <Skeleton h={104} />
        </SimpleGrid>
      ) : null}
      {workflows.data?.length === 0 ? (
        <Paper>
          <EmptyState icon={IconSitemapOff} title="No workflows">
            Add a DAG to airflow/dags/; it is picked up within seconds. If there are DAGs, you may lack permission in
            Airflow to see them.
          </EmptyState>
        </Paper>
      ) : null}
      <SimpleGrid cols={{ base: 1, md: 2 }}>
        {workflows.data?.map((workflow) => (
          <Card key={workflow.dag_id} workflow={workflow} />
        ))}
      </SimpleGrid>
    </>
  );
}

function Card({ workflow }: { workflow: WorkflowOut }) {
  return (
    <Paper p="md" className={classes.card}>
      <Group justify="space-between" wrap="nowrap" align="flex-start">
        <div>
          <Link to="/run/$dagId" params={{ dagId: workflow.dag_id }} className={classes.link}>
            {workflow.display_name}
          </Link>
          <Text c="dimmed" mt={2}>
            {workflow.description ?? "No description."}
          </Text>
          <Group gap={6} mt="sm">
            {workflow.paused ? (
              <Badge color="gray" variant="light" leftSection={<IconPlayerPause size={11} aria-hidden />}>
                Paused
              </Badge>
            ) : null}
            {workflow.import_error ? (
              <Badge color="red" variant="light" title={workflow.import_error}>
                Import error
              </Badge>
            ) : null}
            {workflow.tags.map((tag) => (
              <Badge key={tag} color="gray" variant="light">
                {tag}
              </Badge>
            ))}
          </Group>
        </div>
        <IconChevronRight size={18} aria-hidden className={classes.arrow} />
      </Group>
    </Paper>
  );
}
