import {
  Button,
  Center,
  Group,
  Paper,
  SegmentedControl,
  Select,
  Skeleton,
  Stack,
  Text,
  TextInput,
} from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { IconFilterOff, IconPlus, IconSearch, IconTemplate } from "@tabler/icons-react";
import { keepPreviousData, useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { mayChange, useMe } from "@/shared/api/session";
import { workflowsQuery } from "@/shared/api/workflows";
import { EmptyState } from "@/shared/ui/EmptyState";
import { ButtonLink } from "@/shared/ui/links";
import { PageHeader } from "@/shared/ui/PageHeader";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { templatesQuery } from "./queries";
import { templatesSearch } from "./search";
import { TemplatesTable } from "./TemplatesTable";

const route = getRouteApi("/signed-in/saved");

/** All templates: workflows as data. */
export function TemplatesPage() {
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const me = useMe();
  const writes = mayChange(me.role);
  const templates = useInfiniteQuery({ ...templatesQuery(search), placeholderData: keepPreviousData });
  const workflows = useQuery(workflowsQuery);
  const rows = templates.data?.pages.flatMap((page) => page.templates) ?? [];
  const change = (part: Record<string, unknown>) =>
    void navigate({ search: templatesSearch({ ...search, ...part }), replace: true });
  const changeText = useDebouncedCallback((q: string) => change({ q }), 300);
  const dags = new Set([...(workflows.data?.map((one) => one.dag_id) ?? []), ...(search.dag ? [search.dag] : [])]);
  const filtered = search.q !== undefined || search.dag !== undefined || search.show === "retired";

  return (
    <>
      <PageHeader
        title="Templates"
        subtitle="Workflows as data: which DAG and agents, with which input, model and budget."
      >
        {writes ? (
          <ButtonLink to="/new-template" leftSection={<IconPlus size={16} aria-hidden />}>
            New template
          </ButtonLink>
        ) : (
          <Text size="sm" c="dimmed" maw={320}>
            The role Viewer is read-only. Creating templates requires the role User or higher.
          </Text>
        )}
      </PageHeader>
      <Stack gap="md">
        <Group gap="sm" role="search" aria-label="Filter templates">
          <TextInput
            key={search.q === undefined ? "none" : "some"}
            aria-label="Name or description"
            placeholder="Name or description"
            leftSection={<IconSearch size={15} aria-hidden />}
            defaultValue={search.q}
            onChange={(event) => changeText(event.currentTarget.value)}
            w={260}
          />
          <Select
            aria-label="Workflow"
            placeholder="Any workflow"
            data={[...dags]}
            value={search.dag ?? null}
            onChange={(dag) => change({ dag })}
            clearable
            searchable
            w={230}
          />
          <SegmentedControl
            aria-label="Status"
            data={[
              { value: "active", label: "Active" },
              { value: "retired", label: "Retired" },
              { value: "all", label: "All" },
            ]}
            value={search.show ?? "active"}
            onChange={(show) => change({ show })}
          />
        </Group>
        {templates.isError ? <ProblemAlert error={templates.error} onRetry={() => void templates.refetch()} /> : null}
        {templates.isPending ? (
          <Paper p="md" role="status" aria-busy="true" aria-label="Loading templates">
            <Stack gap="sm">
              {Array.from({ length: 5 }, (_, index) => (
                <Skeleton key={index} h={38} />
              ))}
            </Stack>
          </Paper>
        ) : null}
        {templates.isSuccess && rows.length === 0 ? (
          <Paper>
            {filtered ? (
              <EmptyState
                icon={IconFilterOff}
                title={
                  search.show === "retired" && !search.q && !search.dag ? "No retired templates" : "No templates match"
                }
                action={
                  <Button variant="default" onClick={() => void navigate({ search: {}, replace: true })}>
                    Show active templates
                  </Button>
                }
              >
                Remove a filter, or search for a shorter part of the name.
              </EmptyState>
            ) : (
              <EmptyState
                icon={IconTemplate}
                title="No templates yet"
                action={writes ? <ButtonLink to="/new-template">Create the first one</ButtonLink> : undefined}
              >
                A template defines agents, how they work together, and their initial input. Running it needs no new DAG
                file.
              </EmptyState>
            )}
          </Paper>
        ) : null}
        {rows.length > 0 ? <TemplatesTable templates={rows} /> : null}
        {templates.hasNextPage ? (
          <Center>
            <Button
              variant="default"
              loading={templates.isFetchingNextPage}
              onClick={() => void templates.fetchNextPage()}
            >
              Show more
            </Button>
          </Center>
        ) : null}
      </Stack>
    </>
  );
}
