import { Button, Group, Modal, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconArchive } from "@tabler/icons-react";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { useTemplateChanges } from "./useTemplateChanges";

/** Retires a template, after confirmation. */
export function RetireButton({ name }: { name: string }) {
  const [opened, { open, close }] = useDisclosure();
  const { retire } = useTemplateChanges(name);
  return (
    <>
      <Button variant="default" leftSection={<IconArchive size={16} aria-hidden />} onClick={open}>
        Retire
      </Button>
      <Modal opened={opened} onClose={close} title={`Retire ${name}?`} closeButtonProps={{ "aria-label": "Close" }}>
        <Stack gap="md">
          <Text>
            No version of it can be run any more; requests that name it are rejected. Runs that have already started
            continue. Its versions are kept, and activating one brings it back.
          </Text>
          {retire.error ? <ProblemAlert error={retire.error} /> : null}
          <Group justify="flex-end">
            <Button variant="default" onClick={close}>
              Keep
            </Button>
            <Button
              color="red"
              loading={retire.isPending}
              onClick={() => retire.mutate(undefined, { onSuccess: close })}
            >
              Retire
            </Button>
          </Group>
        </Stack>
      </Modal>
    </>
  );
}
