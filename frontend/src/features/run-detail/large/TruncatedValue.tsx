import { Button, Group, ScrollArea, Text } from "@mantine/core";
import { IconDownload, IconExternalLink } from "@tabler/icons-react";
import type { Truncated } from "@/shared/api/schema";
import { bytes } from "@/shared/format/amounts";

/** The beginning of a large value, its size, and links to all of it. */
export function TruncatedValue({ value, name }: { value: Truncated; name: "input" | "result" | "state" }) {
  return (
    <>
      <Group justify="space-between" mb="sm">
        <Text size="sm">
          The {name} has {bytes(value.bytes)}. This is its beginning.
        </Text>
        <Group gap="xs">
          <Button
            component="a"
            href={value.url}
            target="_blank"
            rel="noreferrer"
            size="xs"
            variant="default"
            leftSection={<IconExternalLink size={14} aria-hidden />}
          >
            Open all
          </Button>
          <Button
            component="a"
            href={value.url}
            download={`${name}.json`}
            size="xs"
            variant="default"
            leftSection={<IconDownload size={14} aria-hidden />}
          >
            Download
          </Button>
        </Group>
      </Group>
      <ScrollArea.Autosize mah={480}>
        <pre className="mono" style={{ margin: 0, whiteSpace: "pre-wrap", overflowWrap: "anywhere" }}>
          {value.excerpt}…
        </pre>
      </ScrollArea.Autosize>
    </>
  );
}
