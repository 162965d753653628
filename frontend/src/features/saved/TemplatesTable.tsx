import { Paper, ScrollArea, Table, Text, Tooltip, VisuallyHidden } from "@mantine/core";
import { IconPlayerPlay } from "@tabler/icons-react";
import { Link } from "@tanstack/react-router";
import type { TemplateSummary } from "@/shared/api/schema";
import { mayChange, useMe } from "@/shared/api/session";
import { fullMoment, moment } from "@/shared/format/times";
import { IconLink } from "@/shared/ui/links";
import { StateBadge } from "@/shared/ui/StateBadge";
import classes from "./TemplatesTable.module.css";

/** Templates as rows; each is a link to its page. */
export function TemplatesTable({ templates }: { templates: TemplateSummary[] }) {
  const runs = mayChange(useMe().role);
  return (
    <Paper style={{ overflow: "hidden" }}>
      <ScrollArea type="auto">
        <Table miw={860} className={classes.table}>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Template</Table.Th>
              <Table.Th>Workflow</Table.Th>
              <Table.Th>Version</Table.Th>
              <Table.Th>State</Table.Th>
              <Table.Th>Made by</Table.Th>
              <Table.Th>This version</Table.Th>
              {runs ? (
                <Table.Th w={48}>
                  <VisuallyHidden>Run</VisuallyHidden>
                </Table.Th>
              ) : null}
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {templates.map((template) => (
              <Table.Tr key={template.name} className={classes.row}>
                <Table.Td className={classes.name}>
                  <Link to="/saved/$name" params={{ name: template.name }} className={classes.link}>
                    {template.name}
                  </Link>
                  <Text size="xs" c="dimmed" truncate maw={420}>
                    {template.description ?? "No description"}
                  </Text>
                </Table.Td>
                <Table.Td>{template.dag_id}</Table.Td>
                <Table.Td>
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
                <Table.Td>{template.owner ?? "–"}</Table.Td>
                <Table.Td title={fullMoment(template.created_at)}>{moment(template.created_at)}</Table.Td>
                {runs ? (
                  <Table.Td>
                    {template.active ? (
                      <Tooltip label="Run it">
                        <IconLink
                          to="/run/$dagId"
                          params={{ dagId: template.dag_id }}
                          search={{ template: template.name }}
                          variant="subtle"
                          size="sm"
                          className={classes.above}
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
          </Table.Tbody>
        </Table>
      </ScrollArea>
    </Paper>
  );
}
