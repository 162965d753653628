import { Badge, Button, Center, Group, Modal, Skeleton, Stack, Table, Text, VisuallyHidden } from "@mantine/core";
import { IconKey, IconPlus } from "@tabler/icons-react";
import { infiniteQueryOptions, useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { answer, api } from "@/shared/api/client";
import { useMe } from "@/shared/api/session";
import type { TokenOut } from "@/shared/api/schema";
import { fullMoment, moment } from "@/shared/format/times";
import { cell, DataTable, TablePanel } from "@/shared/ui/DataTable";
import { EmptyState } from "@/shared/ui/EmptyState";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { useNow } from "@/shared/ui/useNow";
import { NewTokenModal } from "./NewTokenModal";
import { standing } from "./standing";

function tokensQuery(everyone: boolean) {
  return infiniteQueryOptions({
    queryKey: ["tokens", { everyone }],
    queryFn: ({ pageParam }) =>
      answer(
        api.GET("/tokens", {
          params: { query: { everyone, limit: 25, ...(pageParam ? { cursor: pageParam } : {}) } },
        }),
      ),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
  });
}

/** The user's service tokens; for an Admin, those of all users. */
export function ServiceTokens() {
  const everyone = useMe().role === "Admin";
  const query = useInfiniteQuery(tokensQuery(everyone));
  const [adding, setAdding] = useState(false);
  const [revoked, setRevoked] = useState<TokenOut | null>(null);
  const rows = query.data?.pages.flatMap((page) => page.tokens) ?? [];
  return (
    <TablePanel
      title="Service tokens"
      note="Programs send them as Authorization: Bearer. A token never permits more than its creator may do, and ends with the creator's account."
    >
      <Group px="md" pb="sm">
        <Button variant="default" leftSection={<IconPlus size={16} aria-hidden />} onClick={() => setAdding(true)}>
          Create a token
        </Button>
      </Group>
      {query.isError ? <ProblemAlert error={query.error} onRetry={() => void query.refetch()} /> : null}
      {query.isPending ? (
        <Skeleton h={120} m="lg" role="status" aria-busy="true" aria-label="Loading service tokens" />
      ) : null}
      {query.isSuccess && rows.length === 0 ? (
        <EmptyState icon={IconKey} title="No service tokens">
          Create one for a script or a pipeline, instead of giving it your password.
        </EmptyState>
      ) : null}
      {rows.length > 0 ? (
        <DataTable
          minWidth={880}
          aria-label="Service tokens"
          head={
            <>
              <Table.Th>Name</Table.Th>
              {everyone ? <Table.Th>User</Table.Th> : null}
              <Table.Th>May</Table.Th>
              <Table.Th>Workflows</Table.Th>
              <Table.Th>Last used</Table.Th>
              <Table.Th>Valid until</Table.Th>
              <Table.Th>
                <VisuallyHidden>Revoke</VisuallyHidden>
              </Table.Th>
            </>
          }
        >
          {rows.map((one) => (
            <Row key={one.id} token={one} withUser={everyone} onRevoke={() => setRevoked(one)} />
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
      {adding ? <NewTokenModal onClose={() => setAdding(false)} /> : null}
      {revoked ? <RevokeModal token={revoked} onClose={() => setRevoked(null)} /> : null}
    </TablePanel>
  );
}

function Row({ token, withUser, onRevoke }: { token: TokenOut; withUser: boolean; onRevoke: () => void }) {
  const state = standing(token, useNow(60_000));
  return (
    <Table.Tr>
      <Table.Td className={cell.prose}>
        {token.name}
        <Text size="xs" c="dimmed" className="mono">
          lgf_{token.prefix}_…
        </Text>
      </Table.Td>
      {withUser ? <Table.Td>{token.user_id}</Table.Td> : null}
      <Table.Td>{token.scopes.join(", ")}</Table.Td>
      <Table.Td className={cell.prose}>{token.dag_ids?.join(", ") ?? "all"}</Table.Td>
      <Table.Td title={fullMoment(token.last_used_at)}>
        {token.last_used_at ? moment(token.last_used_at) : "never"}
      </Table.Td>
      <Table.Td title={fullMoment(token.expires_at)}>
        {state === "valid" ? moment(token.expires_at) : <Badge color="gray">{state}</Badge>}
      </Table.Td>
      <Table.Td ta="right">
        {state === "valid" ? (
          <Button size="compact-sm" variant="light" color="red" onClick={onRevoke} aria-label={`Revoke ${token.name}`}>
            Revoke
          </Button>
        ) : null}
      </Table.Td>
    </Table.Tr>
  );
}

function RevokeModal({ token, onClose }: { token: TokenOut; onClose: () => void }) {
  const client = useQueryClient();
  const revoke = useMutation({
    mutationFn: () => answer(api.DELETE("/tokens/{token_id}", { params: { path: { token_id: token.id } } })),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ["tokens"] });
      onClose();
    },
  });
  return (
    <Modal opened onClose={onClose} title={`Revoke ${token.name}?`} closeButtonProps={{ "aria-label": "Close" }}>
      <Stack>
        {revoke.error ? <ProblemAlert error={revoke.error} /> : null}
        <Text>Programs that use this token are refused from now on. This can&apos;t be undone.</Text>
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button color="red" loading={revoke.isPending} onClick={() => revoke.mutate()}>
            Revoke
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}
