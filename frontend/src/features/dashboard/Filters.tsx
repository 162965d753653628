import { ActionIcon, Button, Group, Select, Text, TextInput, Tooltip } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { IconRefresh, IconSearch, IconX } from "@tabler/icons-react";
import { useIsFetching, useQuery, useQueryClient } from "@tanstack/react-query";
import { workflowsQuery } from "@/shared/api/workflows";
import { refreshEvery, type Scope } from "./queries";

interface Props {
  dag: string | undefined;
  user: string | undefined;
  /** Whether the user may see other users' runs. */
  withUser: boolean;
  onChange: (part: { dag?: string | null; user?: string }) => void;
  scope?: Scope;
}

/** Filters the runs behind the figures; the choice is kept in the URL. */
export function Filters({ dag, user, withUser, onChange, scope }: Props) {
  const workflows = useQuery(workflowsQuery);
  const client = useQueryClient();
  const busy = useIsFetching({ queryKey: ["monitoring"] }) > 0;
  const changeUser = useDebouncedCallback((given: string) => onChange({ user: given.trim() }), 350);
  const dags = new Set([...(workflows.data?.map((one) => one.dag_id) ?? []), ...(dag ? [dag] : [])]);
  return (
    <Group justify="space-between" mb="md" gap="sm">
      <Group gap="sm" role="search" aria-label="Filter figures">
        <Select
          aria-label="Workflow"
          placeholder="All workflows"
          data={[...dags]}
          value={dag ?? null}
          onChange={(given) => onChange({ dag: given })}
          clearable
          searchable
          w={230}
        />
        {withUser ? (
          <TextInput
            key={user === undefined ? "none" : "some"}
            aria-label="User"
            placeholder="All users"
            leftSection={<IconSearch size={15} aria-hidden />}
            defaultValue={user}
            onChange={(event) => changeUser(event.currentTarget.value)}
            w={170}
          />
        ) : null}
        {dag || user ? (
          <Button
            variant="subtle"
            color="gray"
            leftSection={<IconX size={15} aria-hidden />}
            onClick={() => onChange({ dag: null, user: "" })}
          >
            Clear
          </Button>
        ) : null}
      </Group>
      {scope ? (
        <Group gap={6}>
          <Text size="xs" c="dimmed">
            Refreshes every {everyLabel(refreshEvery(scope.range))}
          </Text>
          <Tooltip label="Refresh now">
            <ActionIcon
              variant="subtle"
              color="gray"
              aria-label="Refresh now"
              loading={busy}
              onClick={() => void client.invalidateQueries({ queryKey: ["monitoring"] })}
            >
              <IconRefresh size={16} aria-hidden />
            </ActionIcon>
          </Tooltip>
        </Group>
      ) : null}
    </Group>
  );
}

function everyLabel(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  return seconds < 60 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}
