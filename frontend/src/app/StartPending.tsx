import { Center, Loader, Stack } from "@mantine/core";
import { Logo } from "@/shared/ui/Logo";

/** Shown in place of the application while the session is looked up. */
export function StartPending() {
  return (
    <Center mih="100dvh" role="status" aria-busy="true" aria-label="Loading">
      <Stack align="center" gap="lg">
        <Logo size={44} />
        <Loader size="sm" type="dots" />
      </Stack>
    </Center>
  );
}
