import { Button, Group, Modal, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { notifications } from "@mantine/notifications";
import type { TablerIcon } from "@tabler/icons-react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { answer, api } from "@/shared/api/client";
import type { SnapshotOut } from "@/shared/api/schema";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";

interface Props {
  run: SnapshotOut;
  change: "cancel" | "retry";
  icon: TablerIcon;
  label: string;
  question: string;
  consequence: string;
}

/** Cancels or retries the run, after confirmation. */
export function RunActionButton({ run, change, icon: Icon, label, question, consequence }: Props) {
  const [opened, { open, close }] = useDisclosure();
  const client = useQueryClient();
  const params = { path: { dag_id: run.dag_id, dag_run_id: run.dag_run_id } };
  const mutation = useMutation({
    mutationFn: () =>
      change === "cancel"
        ? answer(api.POST("/workflows/{dag_id}/runs/{dag_run_id}/cancel", { params }))
        : answer(api.POST("/workflows/{dag_id}/runs/{dag_run_id}/retry", { params })),
    onSuccess: async () => {
      close();
      notifications.show({
        message: change === "cancel" ? "The run is being cancelled." : "The run is being retried.",
      });
      await client.invalidateQueries({ queryKey: ["run", run.dag_id, run.dag_run_id] });
    },
  });
  const colour = change === "cancel" ? "red" : undefined;
  const show = () => {
    mutation.reset();
    open();
  };
  return (
    <>
      <Button
        variant={change === "cancel" ? "light" : "filled"}
        color={colour}
        leftSection={<Icon size={16} aria-hidden />}
        onClick={show}
      >
        {label}
      </Button>
      <Modal opened={opened} onClose={close} title={question}>
        <Stack>
          {mutation.error ? <ProblemAlert error={mutation.error} /> : null}
          <Text>{consequence}</Text>
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={close}>
              Not now
            </Button>
            <Button
              color={colour}
              loading={mutation.isPending}
              onClick={() => mutation.mutate()}
              leftSection={<Icon size={16} aria-hidden />}
              data-autofocus
            >
              {label} the run
            </Button>
          </Group>
        </Stack>
      </Modal>
    </>
  );
}
