import { Group, Text, Title } from "@mantine/core";
import { useDocumentTitle } from "@mantine/hooks";
import type { ReactNode } from "react";

interface Props {
  title: string;
  /** A line that describes the page. */
  subtitle?: ReactNode;
  /** Buttons and filters on the right. */
  children?: ReactNode;
}

/** A page's header; also sets the browser tab's title. */
export function PageHeader({ title, subtitle, children }: Props) {
  useDocumentTitle(`${title} · LangGraph Flow`);
  return (
    <Group component="header" justify="space-between" align="flex-end" gap="md" mb="lg">
      <div>
        <Title order={1}>{title}</Title>
        {subtitle ? (
          <Text c="dimmed" mt={2}>
            {subtitle}
          </Text>
        ) : null}
      </div>
      {children ? <Group gap="sm">{children}</Group> : null}
    </Group>
  );
}
