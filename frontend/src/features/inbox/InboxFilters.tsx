import { Button, Group, SegmentedControl, Select } from "@mantine/core";
import { IconX } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { workflowsQuery } from "@/shared/api/workflows";
import { type InboxSearch, inboxSearch } from "./search";

interface Props {
  filters: InboxSearch;
  onChange: (filters: InboxSearch) => void;
}

/** Which questions are listed; kept in the URL. */
export function InboxFilters({ filters, onChange }: Props) {
  const workflows = useQuery(workflowsQuery);
  // Goes through the same parser as a URL, so empty values are left out.
  const change = (part: Record<string, unknown>) => onChange(inboxSearch({ ...filters, ...part }));
  const dags = new Set([...(workflows.data?.map((one) => one.dag_id) ?? []), ...(filters.dag ? [filters.dag] : [])]);
  const filtered = filters.dag !== undefined || filters.run !== undefined || filters.age !== undefined;
  return (
    <Group gap="sm">
      <SegmentedControl
        aria-label="Questions"
        data={[
          { value: "open", label: "All open" },
          { value: "mine", label: "For me" },
          { value: "answered", label: "Answered" },
          { value: "closed", label: "Closed" },
        ]}
        value={filters.show ?? "open"}
        onChange={(show) => change({ show })}
      />
      <Group gap="sm" role="search" aria-label="Filter questions">
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
        <Select
          aria-label="Age"
          placeholder="Any age"
          data={[
            { value: "1h", label: "Over 1 hour" },
            { value: "24h", label: "Over 24 hours" },
            { value: "7d", label: "Over 7 days" },
          ]}
          value={filters.age ?? null}
          onChange={(age) => change({ age })}
          clearable
          w={160}
        />
        {filtered ? (
          <Button
            variant="subtle"
            color="gray"
            leftSection={<IconX size={15} aria-hidden />}
            onClick={() => onChange(inboxSearch({ show: filters.show }))}
          >
            {filters.run === undefined ? "Clear" : "All runs"}
          </Button>
        ) : null}
      </Group>
    </Group>
  );
}
