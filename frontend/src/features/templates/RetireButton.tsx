import { Button, Group, Modal, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconArchive } from "@tabler/icons-react";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { useTemplateChanges } from "./useTemplateChanges";

/** Retires a template, once somebody has said that they mean it. */
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
            Nobody can start runs of it any more, of no version; requests that name it are refused. Runs that have been
            started go on. Its versions stay, and activating one brings it back.
          </Text>
          {retire.error ? <ProblemAlert error={retire.error} /> : null}
          <Group justify="flex-end">
            <Button variant="default" onClick={close}>
              Keep it
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
