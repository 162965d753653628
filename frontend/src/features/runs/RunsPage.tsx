import { Button, Center, Group, Paper, Skeleton, Stack, Text } from "@mantine/core";
import { IconArrowsDiff, IconFilterOff, IconListDetails, IconPlayerPlay } from "@tabler/icons-react";
import { keepPreviousData, useInfiniteQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { useState } from "react";
import { mayChange, READS_ONLY, useMe } from "@/shared/api/session";
import { EmptyState } from "@/shared/ui/EmptyState";
import { ButtonLink } from "@/shared/ui/links";
import { PageHeader } from "@/shared/ui/PageHeader";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { RunFilters } from "./RunFilters";
import { runsQuery } from "./runs-query";
import { RunsTable } from "./RunsTable";

const route = getRouteApi("/signed-in/runs");

/** All runs that the user may see, live. */
export function RunsPage() {
  const filters = route.useSearch();
  const navigate = route.useNavigate();
  const me = useMe();
  const runs = useInfiniteQuery({ ...runsQuery(filters), placeholderData: keepPreviousData });
  const rows = runs.data?.pages.flatMap((page) => page.executions) ?? [];
  const [chosen, setChosen] = useState<string[]>([]);
  const [left, right] = chosen;
  // The last two that were chosen.
  const choose = (run: string, isChosen: boolean) =>
    setChosen((before) => [...before.filter((one) => one !== run), ...(isChosen ? [run] : [])].slice(-2));
  const filtered = Object.keys(filters).length > 0;

  return (
    <>
      <PageHeader title="Runs" subtitle={me.role === "User" ? "Your runs, newest first." : "All runs, newest first."}>
        {mayChange(me.role) ? (
          <ButtonLink to="/run" leftSection={<IconPlayerPlay size={16} aria-hidden />}>
            Run a workflow
          </ButtonLink>
        ) : (
          <Text size="sm" c="dimmed" maw={320}>
            {READS_ONLY}
          </Text>
        )}
      </PageHeader>
      <Stack gap="md">
        <Group justify="space-between" align="flex-end">
          <RunFilters filters={filters} onChange={(search) => void navigate({ search, replace: true })} />
          {left === undefined ? null : right === undefined ? (
            <Text size="sm" c="dimmed" role="status">
              Choose another run to compare with.
            </Text>
          ) : (
            <ButtonLink
              to="/compare"
              search={{ left, right }}
              variant="default"
              leftSection={<IconArrowsDiff size={16} aria-hidden />}
            >
              Compare 2 runs
            </ButtonLink>
          )}
        </Group>
        {runs.isError ? <ProblemAlert error={runs.error} onRetry={() => void runs.refetch()} /> : null}
        {runs.isPending ? (
          <Paper p="md" role="status" aria-busy="true" aria-label="Loading runs">
            <Stack gap="sm">
              {Array.from({ length: 8 }, (_, index) => (
                <Skeleton key={index} h={30} />
              ))}
            </Stack>
          </Paper>
        ) : null}
        {runs.isSuccess && rows.length === 0 ? (
          <Paper>
            {filtered ? (
              <EmptyState
                icon={IconFilterOff}
                title="No runs match these filters"
                action={
                  <Button variant="default" onClick={() => void navigate({ search: {}, replace: true })}>
                    Show all runs
                  </Button>
                }
              >
                Choose a longer time range, or remove a filter.
              </EmptyState>
            ) : (
              <EmptyState icon={IconListDetails} title="No runs yet">
                {mayChange(me.role)
                  ? "Run a workflow here, or start one through the API, in Airflow or by a schedule: every run appears in this list."
                  : "Runs that others start appear in this list."}
              </EmptyState>
            )}
          </Paper>
        ) : null}
        {rows.length > 0 ? <RunsTable runs={rows} chosen={chosen} onChoose={choose} /> : null}
        {runs.hasNextPage ? (
          <Center>
            <Button variant="default" loading={runs.isFetchingNextPage} onClick={() => void runs.fetchNextPage()}>
              Load older runs
            </Button>
          </Center>
        ) : null}
      </Stack>
    </>
  );
}
