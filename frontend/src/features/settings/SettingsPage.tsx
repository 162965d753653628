import { Skeleton, Stack, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { preferencesQuery } from "@/shared/api/preferences";
import { isOperator, useMe } from "@/shared/api/session";
import { PageHeader } from "@/shared/ui/PageHeader";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { DefaultsForm } from "./DefaultsForm";
import { Limits } from "./limits/Limits";
import { SignOutUser } from "./SignOutUser";
import { ServiceTokens } from "./tokens/ServiceTokens";
import { Targets } from "./Targets";
import { Undelivered } from "./Undelivered";

/** The user's preferences, limits and service tokens; for operators, undelivered notifications; for Admins, sessions. */
export function SettingsPage() {
  const me = useMe();
  const preferences = useQuery(preferencesQuery);
  return (
    <>
      <PageHeader title="Settings" subtitle={`Applies to ${me.user_id} on every device.`} />
      <Stack gap="lg" maw={1080}>
        {preferences.isError ? (
          <ProblemAlert error={preferences.error} onRetry={() => void preferences.refetch()} />
        ) : null}
        {preferences.isPending ? (
          <Stack role="status" aria-busy="true" aria-label="Loading your settings">
            <Skeleton h={280} radius="lg" />
            <Skeleton h={180} radius="lg" />
          </Stack>
        ) : null}
        {preferences.data ? (
          <>
            <DefaultsForm known={preferences.data} />
            <Targets known={preferences.data} />
          </>
        ) : null}
        <Limits />
        <ServiceTokens />
        {isOperator(me.role) ? <Undelivered /> : null}
        {me.role === "Admin" ? (
          <>
            <SignOutUser />
            <Text>
              The <Link to="/settings/audit">audit log</Link> shows who did what, when and from where.
            </Text>
          </>
        ) : null}
      </Stack>
    </>
  );
}
