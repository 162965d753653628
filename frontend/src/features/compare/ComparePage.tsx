import { Paper, Skeleton, Stack } from "@mantine/core";
import { IconArrowsDiff } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { answer, api } from "@/shared/api/client";
import { EmptyState } from "@/shared/ui/EmptyState";
import { ButtonLink } from "@/shared/ui/links";
import { PageHeader } from "@/shared/ui/PageHeader";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { ComparedRuns } from "./ComparedRuns";

const route = getRouteApi("/signed-in/compare");

/** Two runs side by side. */
export function ComparePage() {
  const { left = "", right = "" } = route.useSearch();
  const query = useQuery({
    queryKey: ["compare", left, right],
    queryFn: () => answer(api.GET("/workflow-status/compare", { params: { query: { left, right } } })),
    enabled: left !== "" && right !== "",
  });
  return (
    <>
      <PageHeader title="Compare runs" subtitle="Agents and their nodes in order, and what differs." />
      <Stack>
        {left === "" || right === "" ? (
          <Paper>
            <EmptyState
              icon={IconArrowsDiff}
              title="Two runs are needed"
              action={<ButtonLink to="/runs">Go to runs</ButtonLink>}
            >
              Choose two in the list of runs, or open one that was forked and choose Compare there.
            </EmptyState>
          </Paper>
        ) : null}
        {query.isError ? <ProblemAlert error={query.error} onRetry={() => void query.refetch()} /> : null}
        {query.isLoading ? <Skeleton h={320} role="status" aria-busy="true" aria-label="Comparing the runs" /> : null}
        {query.data ? <ComparedRuns found={query.data} /> : null}
      </Stack>
    </>
  );
}
