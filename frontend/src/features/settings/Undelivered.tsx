import { Button, Center, Skeleton, Table, Text, VisuallyHidden } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { IconMailCheck, IconSend } from "@tabler/icons-react";
import { infiniteQueryOptions, useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { answer, api } from "@/shared/api/client";
import { asProblem } from "@/shared/api/problem";
import type { NotificationOut } from "@/shared/api/schema";
import { fullMoment, moment } from "@/shared/format/times";
import { cell, DataTable, TablePanel } from "@/shared/ui/DataTable";
import { EmptyState } from "@/shared/ui/EmptyState";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { eventLabel } from "./preferences";
import classes from "./Undelivered.module.css";

const deadQuery = infiniteQueryOptions({
  queryKey: ["notifications", "dead"],
  queryFn: ({ pageParam }) =>
    answer(
      api.GET("/notifications", {
        params: { query: { state: "dead", limit: 25, ...(pageParam ? { cursor: pageParam } : {}) } },
      }),
    ),
  initialPageParam: null as string | null,
  getNextPageParam: (page) => page.next_cursor,
  refetchInterval: 30_000,
});

/** Undelivered notifications of all users, which can be sent again. */
export function Undelivered() {
  const query = useInfiniteQuery(deadQuery);
  const rows = query.data?.pages.flatMap((page) => page.notifications) ?? [];
  return (
    <TablePanel
      title="Not delivered"
      note="Notifications of all users that couldn't be delivered. If you resend one, it goes to its target's current URL."
    >
      {query.isError ? <ProblemAlert error={query.error} onRetry={() => void query.refetch()} /> : null}
      {query.isPending ? (
        <Skeleton h={120} m="lg" role="status" aria-busy="true" aria-label="Loading notifications" />
      ) : null}
      {query.isSuccess && rows.length === 0 ? (
        <EmptyState icon={IconMailCheck} title="Everything has been delivered">
          Notifications that can&apos;t be delivered within a day are listed here.
        </EmptyState>
      ) : null}
      {rows.length > 0 ? (
        <DataTable
          minWidth={880}
          head={
            <>
              <Table.Th>Event</Table.Th>
              <Table.Th>User and target</Table.Th>
              <Table.Th>Run</Table.Th>
              <Table.Th>Reason</Table.Th>
              <Table.Th>Given up</Table.Th>
              <Table.Th>
                <VisuallyHidden>Resend</VisuallyHidden>
              </Table.Th>
            </>
          }
        >
          {rows.map((one) => (
            <Row key={one.id} notification={one} />
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

function Row({ notification: one }: { notification: NotificationOut }) {
  const client = useQueryClient();
  const resend = useMutation({
    mutationFn: () =>
      answer(api.POST("/notifications/{notification_id}/resend", { params: { path: { notification_id: one.id } } })),
    onSuccess: async () => {
      notifications.show({ message: `Resent to ${one.target} of ${one.user_id}.`, color: "green" });
      await client.invalidateQueries({ queryKey: ["notifications"] });
    },
    onError: (error) =>
      notifications.show({ title: "Not sent", message: asProblem(error).detail, color: "red", autoClose: false }),
  });
  const { dag_id: dag, dag_run_id: run } = one.payload;
  return (
    <Table.Tr>
      <Table.Td>{eventLabel(one.event)}</Table.Td>
      <Table.Td>
        {one.user_id}
        <Text size="xs" c="dimmed">
          {one.target}
        </Text>
      </Table.Td>
      <Table.Td>
        {typeof dag === "string" && typeof run === "string" ? (
          <>
            <Link to="/runs/$dagId/$runId" params={{ dagId: dag, runId: run }} className={classes.link}>
              {dag}
            </Link>
            <Text size="xs" c="dimmed" className="mono" truncate maw={240}>
              {run}
            </Text>
          </>
        ) : (
          "–"
        )}
      </Table.Td>
      <Table.Td className={cell.prose}>
        {one.error ?? (one.status === null ? "no response" : `status ${one.status}`)}
        <Text size="xs" c="dimmed">
          {one.attempts === 1 ? "1 attempt" : `${one.attempts} attempts`}
        </Text>
      </Table.Td>
      <Table.Td title={fullMoment(one.finished_at)}>{moment(one.finished_at)}</Table.Td>
      <Table.Td ta="right">
        <Button
          size="compact-sm"
          variant="light"
          leftSection={<IconSend size={14} aria-hidden />}
          loading={resend.isPending}
          onClick={() => resend.mutate()}
          aria-label={`Resend: ${eventLabel(one.event)}, to ${one.target} of ${one.user_id}`}
        >
          Resend
        </Button>
      </Table.Td>
    </Table.Tr>
  );
}
