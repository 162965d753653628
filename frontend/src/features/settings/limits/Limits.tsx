import { Button, Group, Progress, Skeleton, Table, Text, VisuallyHidden } from "@mantine/core";
import { IconGauge, IconPlus } from "@tabler/icons-react";
import { queryOptions, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { answer, api } from "@/shared/api/client";
import { isOperator, useMe } from "@/shared/api/session";
import type { LimitOut } from "@/shared/api/schema";
import { fullMoment, moment } from "@/shared/format/times";
import { cell, DataTable, TablePanel } from "@/shared/ui/DataTable";
import { EmptyState } from "@/shared/ui/EmptyState";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { LimitModal } from "./LimitModal";
import { amountOf, kindOf, shareOf, subjectOf } from "./limits";

const mineQuery = queryOptions({
  queryKey: ["limits", "mine"],
  queryFn: () => answer(api.GET("/limits/mine")),
  refetchInterval: 30_000,
});

const allQuery = queryOptions({
  queryKey: ["limits", "all"],
  queryFn: () => answer(api.GET("/limits")),
  refetchInterval: 30_000,
});

/** The limits that apply to the user; for operators, all limits, which Admins change. */
export function Limits() {
  const me = useMe();
  const operator = isOperator(me.role);
  const admin = me.role === "Admin";
  const query = useQuery(operator ? allQuery : mineQuery);
  const [edited, setEdited] = useState<LimitOut | "new" | null>(null);
  const rows = query.data?.limits ?? [];
  if (!operator && query.isSuccess && rows.length === 0) return null;
  return (
    <TablePanel
      title={operator ? "Limits" : "Your limits"}
      note={
        operator
          ? "What users may spend, run, upload and open. Whoever has used up a limit starts nothing, and running agents stop before their next model call."
          : "Set by an operator. Once one is used up, nothing starts, and running agents stop before their next model call, until it resets."
      }
    >
      {admin ? (
        <Group px="md" pb="sm">
          <Button variant="default" leftSection={<IconPlus size={16} aria-hidden />} onClick={() => setEdited("new")}>
            Add a limit
          </Button>
        </Group>
      ) : null}
      {query.isError ? <ProblemAlert error={query.error} onRetry={() => void query.refetch()} /> : null}
      {query.isPending ? <Skeleton h={120} m="lg" role="status" aria-busy="true" aria-label="Loading limits" /> : null}
      {query.isSuccess && rows.length === 0 ? (
        <EmptyState icon={IconGauge} title="No limits">
          Users may spend and run as much as they like.
        </EmptyState>
      ) : null}
      {rows.length > 0 ? (
        <DataTable
          minWidth={720}
          aria-label="Limits"
          head={
            <>
              <Table.Th>For</Table.Th>
              <Table.Th>Of</Table.Th>
              <Table.Th>Used</Table.Th>
              <Table.Th>Limit</Table.Th>
              <Table.Th>Resets</Table.Th>
              {admin ? (
                <Table.Th>
                  <VisuallyHidden>Change</VisuallyHidden>
                </Table.Th>
              ) : null}
            </>
          }
        >
          {rows.map((one) => (
            <Row key={one.id} limit={one} editable={admin} onEdit={() => setEdited(one)} />
          ))}
        </DataTable>
      ) : null}
      {edited ? <LimitModal known={edited === "new" ? null : edited} onClose={() => setEdited(null)} /> : null}
    </TablePanel>
  );
}

function Row({ limit, editable, onEdit }: { limit: LimitOut; editable: boolean; onEdit: () => void }) {
  const client = useQueryClient();
  const share = shareOf(limit);
  const remove = useMutation({
    mutationFn: () => answer(api.DELETE("/limits/{limit_id}", { params: { path: { limit_id: limit.id } } })),
    onSettled: () => client.invalidateQueries({ queryKey: ["limits"] }),
  });
  return (
    <Table.Tr>
      <Table.Td className={cell.prose} title={limit.id}>
        {subjectOf(limit.subject)}
      </Table.Td>
      <Table.Td className={cell.prose}>{kindOf(limit)}</Table.Td>
      <Table.Td>
        {amountOf(limit.kind, limit.used)}
        {share === null ? null : (
          <Progress value={share} color={share >= 100 ? "red" : "blue"} aria-label={`${Math.round(share)} % used`} />
        )}
      </Table.Td>
      <Table.Td>{amountOf(limit.kind, limit.limit)}</Table.Td>
      <Table.Td title={fullMoment(limit.resets_at)}>{limit.resets_at ? moment(limit.resets_at) : ""}</Table.Td>
      {editable ? (
        <Table.Td ta="right">
          {remove.error ? (
            <Text size="xs" c="red" role="alert">
              {remove.error.message}
            </Text>
          ) : null}
          <Group gap="xs" justify="flex-end" wrap="nowrap">
            <Button size="compact-sm" variant="light" onClick={onEdit} aria-label={`Change ${limit.id}`}>
              Change
            </Button>
            <Button
              size="compact-sm"
              variant="light"
              color="red"
              loading={remove.isPending}
              onClick={() => remove.mutate()}
              aria-label={`Remove ${limit.id}`}
            >
              Remove
            </Button>
          </Group>
        </Table.Td>
      ) : null}
    </Table.Tr>
  );
}
