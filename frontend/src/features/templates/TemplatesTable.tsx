import { Table, Text, Tooltip, VisuallyHidden } from "@mantine/core";
import { IconPlayerPlay } from "@tabler/icons-react";
import { Link } from "@tanstack/react-router";
import type { TemplateSummary } from "@/shared/api/schema";
import { mayChange, useMe } from "@/shared/api/session";
import { fullMoment, moment } from "@/shared/format/times";
import { cell, DataTable, TablePanel } from "@/shared/ui/DataTable";
import { IconLink } from "@/shared/ui/links";
import rows from "@/shared/ui/rows.module.css";
import { StateBadge } from "@/shared/ui/StateBadge";

/** Templates as rows; each row links to the template's page. */
export function TemplatesTable({ templates }: { templates: TemplateSummary[] }) {
  const runs = mayChange(useMe().role);
  return (
    <TablePanel>
      <DataTable
        minWidth={860}
        head={
          <>
            <Table.Th>Template</Table.Th>
            <Table.Th visibleFrom="sm">Workflow</Table.Th>
            <Table.Th visibleFrom="sm">Version</Table.Th>
            <Table.Th>State</Table.Th>
            <Table.Th visibleFrom="sm">Created by</Table.Th>
            <Table.Th visibleFrom="sm">Updated</Table.Th>
            {runs ? (
              <Table.Th w={48}>
                <VisuallyHidden>Run</VisuallyHidden>
              </Table.Th>
            ) : null}
          </>
        }
      >
        {templates.map((template) => (
          <Table.Tr key={template.name} className={rows.row}>
            <Table.Td className={cell.wide}>
              <Link to="/saved/$name" params={{ name: template.name }} className={rows.link}>
                {template.name}
              </Link>
              <Text size="xs" c="dimmed" truncate>
                {template.description ?? "No description"}
              </Text>
            </Table.Td>
            <Table.Td visibleFrom="sm">{template.dag_id}</Table.Td>
            <Table.Td visibleFrom="sm">
              {template.version}
              {template.latest_version > template.version ? (
                <Text span size="xs" c="dimmed">
                  {" "}
                  of {template.latest_version}
                </Text>
              ) : null}
            </Table.Td>
            <Table.Td>
              <StateBadge state={template.active ? "active" : "retired"} />
            </Table.Td>
            <Table.Td visibleFrom="sm">{template.owner ?? "–"}</Table.Td>
            <Table.Td visibleFrom="sm" title={fullMoment(template.created_at)}>
              {moment(template.created_at)}
            </Table.Td>
            {runs ? (
              <Table.Td>
                {template.active ? (
                  <Tooltip label="Run">
                    <IconLink
                      to="/run/$dagId"
                      params={{ dagId: template.dag_id }}
                      search={{ template: template.name }}
                      variant="subtle"
                      size="sm"
                      aria-label={`Run ${template.name}`}
                    >
                      <IconPlayerPlay size={15} aria-hidden />
                    </IconLink>
                  </Tooltip>
                ) : null}
              </Table.Td>
            ) : null}
          </Table.Tr>
        ))}
      </DataTable>
    </TablePanel>
  );
}
