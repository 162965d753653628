import { Button, Group, Modal, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import type { TemplateOut } from "@/shared/api/schema";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { useTemplateChanges } from "./useTemplateChanges";

/** Makes a version the one that runs are made of, once somebody has said that they mean it. */
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
            From now on runs of {template.name} are made of version {version}
            {template.active ? ` instead of ${template.version}` : ", and it is no longer retired"}. Runs that have been
            started keep theirs.
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
