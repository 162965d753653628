import { Button, Group, Table, Text, VisuallyHidden } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import type { TemplateOut } from "@/shared/api/schema";
import { fullMoment, moment } from "@/shared/format/times";
import { DataTable, TablePanel } from "@/shared/ui/DataTable";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import rows from "@/shared/ui/rows.module.css";
import { StateBadge } from "@/shared/ui/StateBadge";
import { ActivateButton } from "./ActivateButton";
import { versionsQuery } from "./queries";

interface Props {
  template: TemplateOut;
  /** The version shown, and the one it is compared with. */
  shown: number;
  against: number | undefined;
  /** Whether the user may activate another version. */
  changes: boolean;
  onShow: (version: number) => void;
  onCompare: (version: number) => void;
}

/** A template's history, newest version first. */
export function VersionList({ template, shown, against, changes, onShow, onCompare }: Props) {
  const query = useInfiniteQuery(versionsQuery(template.name));
  const versions = query.data?.pages.flatMap((page) => page.versions) ?? [];
  return (
    <TablePanel title="Versions">
      {query.isError ? <ProblemAlert error={query.error} onRetry={() => void query.refetch()} /> : null}
      <DataTable
        minWidth={820}
        head={
          <>
            <Table.Th>Version</Table.Th>
            <Table.Th visibleFrom="sm">State</Table.Th>
            <Table.Th>Created</Table.Th>
            <Table.Th visibleFrom="sm">Last active</Table.Th>
            <Table.Th>
              <VisuallyHidden>Actions</VisuallyHidden>
            </Table.Th>
          </>
        }
      >
        {versions.map((one) => (
          <Table.Tr key={one.version} className={rows.row} aria-current={one.version === shown || undefined}>
            <Table.Td fw={550}>{one.version}</Table.Td>
            <Table.Td visibleFrom="sm">{one.active ? <StateBadge state="active" /> : null}</Table.Td>
            <Table.Td title={fullMoment(one.created_at)}>
              {moment(one.created_at)}
              <Text span c="dimmed">
                {" "}
                by {one.created_by ?? "an unknown user"}
              </Text>
            </Table.Td>
            <Table.Td visibleFrom="sm">
              {one.activated_at === null ? (
                <Text span c="dimmed">
                  never
                </Text>
              ) : (
                <span title={fullMoment(one.activated_at)}>
                  from {moment(one.activated_at)} {one.active ? "on" : `to ${moment(one.deactivated_at)}`}
                </span>
              )}
            </Table.Td>
            <Table.Td>
              <Group gap={6} justify="flex-end" wrap="nowrap">
                {one.version === shown ? (
                  <Text size="xs" c="dimmed">
                    shown
                  </Text>
                ) : (
                  <>
                    {one.version === against ? (
                      <Text size="xs" c="dimmed">
                        compared
                      </Text>
                    ) : (
                      <Button
                        size="compact-xs"
                        variant="subtle"
                        onClick={() => onCompare(one.version)}
                        aria-label={`Compare version ${one.version} with ${shown}`}
                      >
                        Compare with {shown}
                      </Button>
                    )}
                    <Button
                      size="compact-xs"
                      variant="subtle"
                      onClick={() => onShow(one.version)}
                      aria-label={`Show version ${one.version}`}
                    >
                      Show
                    </Button>
                  </>
                )}
                {changes && !one.active ? <ActivateButton template={template} version={one.version} /> : null}
              </Group>
            </Table.Td>
          </Table.Tr>
        ))}
      </DataTable>
      {query.hasNextPage ? (
        <Button
          variant="subtle"
          fullWidth
          loading={query.isFetchingNextPage}
          onClick={() => void query.fetchNextPage()}
        >
          Show older versions
        </Button>
      ) : null}
    </TablePanel>
  );
}
