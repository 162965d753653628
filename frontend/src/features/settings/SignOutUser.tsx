import { Button, Checkbox, Group, Paper, Stack, Text, TextInput, Title } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { answer, api } from "@/shared/api/client";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";

/** Signs another user out on all devices. For Admins. */
export function SignOutUser() {
  const [name, setName] = useState("");
  const [tokens, setTokens] = useState(false);
  const signOut = useMutation({
    mutationFn: () =>
      answer(
        api.POST("/users/{user_id}/sign-out", {
          params: { path: { user_id: name.trim() }, query: { service_tokens: tokens } },
        }),
      ),
    onSuccess: () => {
      notifications.show({ message: `Signed ${name.trim()} out everywhere.`, color: "green" });
      setName("");
    },
  });
  return (
    <Paper component="section" aria-labelledby="sign-out-user" p="lg">
      <Title order={2} id="sign-out-user">
        Sign a user out
      </Title>
      <Text c="dimmed" mb="sm">
        On all devices, within a minute. To keep them out, deactivate the account in Airflow.
      </Text>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          signOut.mutate();
        }}
      >
        <Stack>
          {signOut.error ? <ProblemAlert error={signOut.error} /> : null}
          <Group align="flex-end">
            <TextInput
              label="Username"
              required
              maxLength={250}
              autoCapitalize="none"
              spellCheck={false}
              value={name}
              onChange={(event) => setName(event.currentTarget.value)}
            />
            <Button type="submit" variant="default" loading={signOut.isPending}>
              Sign out everywhere
            </Button>
          </Group>
          <Checkbox
            label="Also revoke their service tokens"
            checked={tokens}
            onChange={(event) => setTokens(event.currentTarget.checked)}
          />
        </Stack>
      </form>
    </Paper>
  );
}
