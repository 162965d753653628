import { Button, Kbd, Modal, Stack, Switch, Table, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconKeyboard } from "@tabler/icons-react";
import { useKeys, useSingleKeys } from "./useKeys";

const KEYS: [keys: string[], what: string][] = [
  [["j", "k"], "Next and previous question"],
  [["↓", "↑"], "The same, within the list"],
  [["Enter"], "Open the question"],
  [["e"], "Go to the answer's fields"],
  [["Ctrl + Enter"], "Send the answer, from any of its fields"],
  [["u"], "Back to the list"],
  [["?"], "These shortcuts"],
];

/** Lists the shortcuts, and turns those of single keys off. */
export function KeyHelp() {
  const [opened, { open, close }] = useDisclosure();
  const [single, setSingle] = useSingleKeys();
  useKeys({ "?": open });
  return (
    <>
      <Button
        variant="subtle"
        color="gray"
        visibleFrom="sm"
        leftSection={<IconKeyboard size={16} aria-hidden />}
        onClick={open}
      >
        Shortcuts
      </Button>
      <Modal opened={opened} onClose={close} title="Shortcuts" closeButtonProps={{ "aria-label": "Close" }}>
        <Stack>
          <Table withRowBorders={false} aria-label="Shortcuts">
            <Table.Tbody>
              {KEYS.map(([keys, what]) => (
                <Table.Tr key={what}>
                  <Table.Td w={130}>
                    {keys.map((key) => (
                      <Kbd key={key} mr={4}>
                        {key}
                      </Kbd>
                    ))}
                  </Table.Td>
                  <Table.Td>{what}</Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
          <Switch
            label="Shortcuts of single letters"
            checked={single}
            onChange={(event) => setSingle(event.currentTarget.checked)}
          />
          <Text size="sm" c="dimmed">
            In fields and dialogs, letters are letters.
          </Text>
        </Stack>
      </Modal>
    </>
  );
}
