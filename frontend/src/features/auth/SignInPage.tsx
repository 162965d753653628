import { Alert, Anchor, Button, Center, Paper, PasswordInput, Stack, Text, TextInput, Title } from "@mantine/core";
import { useDocumentTitle } from "@mantine/hooks";
import { IconAlertCircle, IconLogin2 } from "@tabler/icons-react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, useRouter } from "@tanstack/react-router";
import { answer, api } from "@/shared/api/client";
import { asProblem } from "@/shared/api/problem";
import { sessionQuery } from "@/shared/api/session";
import { Logo } from "@/shared/ui/Logo";

const route = getRouteApi("/sign-in");

/** Signs in with an Airflow user and returns to the page that was requested. */
export function SignInPage() {
  useDocumentTitle("Sign in · LangGraph Flow");
  const { from } = route.useSearch();
  const router = useRouter();
  const client = useQueryClient();
  const signIn = useMutation({
    meta: { signsIn: true },
    mutationFn: async (credentials: { username: string; password: string }) => {
      await answer(api.POST("/auth/token", { body: credentials }));
      // Data read as another user, or before signing in, must not be shown to this user.
      client.clear();
      return client.query(sessionQuery);
    },
    onSuccess: () => router.history.push(from ?? "/"),
  });
  const withAirflow = useMutation({
    meta: { signsIn: true },
    mutationFn: async () => {
      await answer(api.POST("/auth/airflow"));
      client.clear();
      return client.query(sessionQuery);
    },
    onSuccess: () => router.history.push(from ?? "/"),
  });
  const failure = signIn.error ?? withAirflow.error;
  const problem = failure ? asProblem(failure) : null;
  const signsInToAirflow = withAirflow.error !== null && asProblem(withAirflow.error).status === 401;

  return (
    <Center component="main" mih="100dvh" p="md">
      <Stack w="100%" maw={380} gap="lg">
        <Stack gap={6} align="center" ta="center">
          <Logo size={44} />
          <Title order={1} mt={6}>
            LangGraph Flow
          </Title>
          <Text c="dimmed">Sign in with your Airflow account.</Text>
        </Stack>
        <Paper p="lg" shadow="xs">
          <form
            onSubmit={(event) => {
              event.preventDefault();
              const given = new FormData(event.currentTarget);
              withAirflow.reset();
              signIn.mutate({
                username: text(given, "username").trim(),
                password: text(given, "password"),
              });
            }}
          >
            <Stack gap="md">
              {problem ? (
                <Alert color="red" icon={<IconAlertCircle aria-hidden />} role="alert">
                  {problem.detail}
                  {signsInToAirflow ? (
                    <>
                      {" "}
                      <Anchor href="/auth/airflow" target="_blank" rel="noreferrer">
                        Sign in to Airflow
                      </Anchor>
                      , then try again.
                    </>
                  ) : null}
                </Alert>
              ) : null}
              <TextInput
                name="username"
                label="Username"
                autoComplete="username"
                autoCapitalize="none"
                spellCheck={false}
                required
                withAsterisk={false}
                size="md"
                data-autofocus
              />
              <PasswordInput
                name="password"
                label="Password"
                autoComplete="current-password"
                required
                withAsterisk={false}
                size="md"
              />
              <Button
                type="submit"
                size="md"
                fullWidth
                loading={signIn.isPending}
                leftSection={<IconLogin2 size={18} aria-hidden />}
              >
                Sign in
              </Button>
              <Button
                variant="default"
                size="md"
                fullWidth
                loading={withAirflow.isPending}
                onClick={() => {
                  signIn.reset();
                  withAirflow.mutate();
                }}
              >
                Continue with Airflow&apos;s sign-in
              </Button>
            </Stack>
          </form>
        </Paper>
        <Text c="dimmed" size="xs" ta="center">
          In development: username <code className="mono">airflow</code>, password <code className="mono">airflow</code>
          , unless you changed them.
        </Text>
      </Stack>
    </Center>
  );
}

function text(given: FormData, name: string): string {
  const value = given.get(name);
  return typeof value === "string" ? value : "";
}
