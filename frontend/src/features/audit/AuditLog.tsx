import { Badge, Button, Center, Group, Select, Skeleton, Table, Text, TextInput } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { IconSearch, IconShieldCheck } from "@tabler/icons-react";
import { infiniteQueryOptions, useInfiniteQuery } from "@tanstack/react-query";
import { answer, api } from "@/shared/api/client";
import type { AuditEntry } from "@/shared/api/schema";
import { fullMoment, moment } from "@/shared/format/times";
import { cell, DataTable, TablePanel } from "@/shared/ui/DataTable";
import { EmptyState } from "@/shared/ui/EmptyState";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { ACTIONS, detailText, OUTCOMES } from "./actions";
import { type AuditSearch, auditSearch, SINCE } from "./search";

function auditQuery({ since, ...filters }: AuditSearch) {
  return infiniteQueryOptions({
    queryKey: ["audit", { ...filters, since }],
    queryFn: ({ pageParam }) =>
      answer(
        api.GET("/audit", {
          params: {
            query: {
              ...filters,
              ...(since ? { since: new Date(Date.now() - SINCE[since] * 3_600_000).toISOString() } : {}),
              limit: 50,
              ...(pageParam ? { cursor: pageParam } : {}),
            },
          },
        }),
      ),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
  });
}

interface Props {
  filters: AuditSearch;
  onChange: (filters: AuditSearch) => void;
}

/** Entries, newest first, with their filters. */
export function AuditLog({ filters, onChange }: Props) {
  const query = useInfiniteQuery(auditQuery(filters));
  const rows = query.data?.pages.flatMap((page) => page.entries) ?? [];
  return (
    <TablePanel title="Entries" note="A refusal that is repeated is recorded once a minute.">
      <Filters filters={filters} onChange={onChange} />
      {query.isError ? <ProblemAlert error={query.error} onRetry={() => void query.refetch()} /> : null}
      {query.isPending ? (
        <Skeleton h={240} m="lg" role="status" aria-busy="true" aria-label="Loading the audit log" />
      ) : null}
      {query.isSuccess && rows.length === 0 ? (
        <EmptyState icon={IconShieldCheck} title="No entries">
          Nothing was recorded that matches the filters.
        </EmptyState>
      ) : null}
      {rows.length > 0 ? (
        <DataTable
          minWidth={980}
          aria-label="Audit log"
          head={
            <>
              <Table.Th>When</Table.Th>
              <Table.Th>User</Table.Th>
              <Table.Th>Action</Table.Th>
              <Table.Th>Outcome</Table.Th>
              <Table.Th>On</Table.Th>
              <Table.Th>From</Table.Th>
            </>
          }
        >
          {rows.map((one) => (
            <Row key={one.id} entry={one} />
          ))}
        </DataTable>
      ) : null}
      {query.hasNextPage ? (
        <Center p="sm">
          <Button variant="default" loading={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
            Show older
          </Button>
        </Center>
      ) : null}
    </TablePanel>
  );
}

function Filters({ filters, onChange }: Props) {
  // Goes through the same parser as a URL, so empty values are left out.
  const change = (part: Record<string, unknown>) => onChange(auditSearch({ ...filters, ...part }));
  const changeUser = useDebouncedCallback((user: string) => change({ user: user.trim() }), 350);
  return (
    <Group gap="sm" px="md" pb="sm" role="search" aria-label="Filter the audit log">
      <Select
        aria-label="Action"
        placeholder="Any action"
        data={Object.entries(ACTIONS).map(([value, label]) => ({ value, label }))}
        value={filters.action ?? null}
        onChange={(action) => change({ action })}
        clearable
        searchable
        w={240}
      />
      <Select
        aria-label="Outcome"
        placeholder="Any outcome"
        data={Object.entries(OUTCOMES).map(([value, { label }]) => ({ value, label }))}
        value={filters.outcome ?? null}
        onChange={(outcome) => change({ outcome })}
        clearable
        w={150}
      />
      <Select
        aria-label="Time"
        placeholder="Any time"
        data={Object.keys(SINCE).map((value) => ({ value, label: `Last ${value}` }))}
        value={filters.since ?? null}
        onChange={(since) => change({ since })}
        clearable
        w={130}
      />
      <TextInput
        aria-label="User"
        placeholder="Any user"
        leftSection={<IconSearch size={15} aria-hidden />}
        defaultValue={filters.user}
        onChange={(event) => changeUser(event.currentTarget.value)}
        w={170}
      />
    </Group>
  );
}

function Row({ entry: one }: { entry: AuditEntry }) {
  const outcome = OUTCOMES[one.outcome];
  return (
    <Table.Tr>
      <Table.Td title={fullMoment(one.occurred_at)}>{moment(one.occurred_at)}</Table.Td>
      <Table.Td>
        {one.user_id ?? "nobody known"}
        <Text size="xs" c="dimmed">
          {[one.role, one.credential].filter(Boolean).join(" · ")}
        </Text>
      </Table.Td>
      <Table.Td>{ACTIONS[one.action]}</Table.Td>
      <Table.Td>
        <Badge color={outcome.color}>{outcome.label}</Badge>
      </Table.Td>
      <Table.Td className={cell.prose}>
        {one.object}
        <Text size="xs" c="dimmed">
          {detailText(one.details)}
        </Text>
      </Table.Td>
      <Table.Td>
        {one.address}
        <Text size="xs" c="dimmed" className="mono" truncate maw={160} title={one.request_id ?? undefined}>
          {one.request_id}
        </Text>
      </Table.Td>
    </Table.Tr>
  );
}
