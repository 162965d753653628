import { Button, Group, MultiSelect, Select, TextInput } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { IconSearch, IconX } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { workflowsQuery } from "@/shared/api/workflows";
import { lookOf, RUN_STATES } from "@/shared/ui/states";
import { type RunsSearch, runsSearch, type Since } from "./search";

const SINCE_LABELS: { value: Since; label: string }[] = [
  { value: "1h", label: "Last hour" },
  { value: "24h", label: "Last 24 hours" },
  { value: "7d", label: "Last 7 days" },
  { value: "30d", label: "Last 30 days" },
];

interface Props {
  filters: RunsSearch;
  onChange: (filters: RunsSearch) => void;
}

/** Filters the run list; the choice is kept in the URL, so it can be bookmarked and shared. */
export function RunFilters({ filters, onChange }: Props) {
  const workflows = useQuery(workflowsQuery);
  // Goes through the same parser as a URL, so empty values are left out.
  const change = (part: Record<string, unknown>) => onChange(runsSearch({ ...filters, ...part }));
  const changeUser = useDebouncedCallback((user: string) => change({ user: user.trim() }), 350);
  const dags = new Set([...(workflows.data?.map((one) => one.dag_id) ?? []), ...(filters.dag ? [filters.dag] : [])]);

  return (
    <Group gap="sm" role="search" aria-label="Filter runs">
      <Select
        aria-label="Workflow"
        placeholder="Any workflow"
        data={[...dags]}
        value={filters.dag ?? null}
        onChange={(dag) => change({ dag })}
        clearable
        searchable
        w={220}
      />
      <MultiSelect
        aria-label="State"
        placeholder={filters.state ? "" : "Any state"}
        data={RUN_STATES.map((state) => ({ value: state, label: lookOf(state).label }))}
        value={filters.state ?? []}
        onChange={(state) => change({ state })}
        clearable
        miw={190}
      />
      <Select
        aria-label="Time"
        placeholder="Any time"
        data={SINCE_LABELS}
        value={filters.since ?? null}
        onChange={(since) => change({ since })}
        clearable
        w={160}
      />
      <TextInput
        key={filters.user === undefined ? "none" : "some"}
        aria-label="User"
        placeholder="Any user"
        leftSection={<IconSearch size={15} aria-hidden />}
        defaultValue={filters.user}
        onChange={(event) => changeUser(event.currentTarget.value)}
        w={170}
      />
      {Object.keys(filters).length > 0 ? (
        <Button
          variant="subtle"
          color="gray"
          leftSection={<IconX size={15} aria-hidden />}
          onClick={() => onChange({})}
        >
          Clear
        </Button>
      ) : null}
    </Group>
  );
}
