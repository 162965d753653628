import { Button, Group, Modal, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import type { TemplateOut } from "@/shared/api/schema";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { useTemplateChanges } from "./useTemplateChanges";

/** Activates a version, after confirmation. */
export function ActivateButton({ template, version }: { template: TemplateOut; version: number }) {
  const [opened, { open, close }] = useDisclosure();
  const { activate } = useTemplateChanges(template.name);
  return (
    <>
      <Button size="compact-xs" variant="light" onClick={open} aria-label={`Activate version ${version}`}>
        Activate
      </Button>
      <Modal
        opened={opened}
        onClose={close}
        title={`Activate version ${version}?`}
        closeButtonProps={{ "aria-label": "Close" }}
      >
        <Stack gap="md">
          <Text>
            New runs of {template.name} will use version {version}
            {template.active ? ` instead of ${template.version}` : ", and the template is no longer retired"}. Runs that
            have already started keep their version.
          </Text>
          {activate.error ? <ProblemAlert error={activate.error} /> : null}
          <Group justify="flex-end">
            <Button variant="default" onClick={close}>
              Not now
            </Button>
            <Button loading={activate.isPending} onClick={() => activate.mutate(version, { onSuccess: close })}>
              Activate
            </Button>
          </Group>
        </Stack>
      </Modal>
    </>
  );
}
