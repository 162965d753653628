import { Skeleton, Stack } from "@mantine/core";

/** A page whose code is on its way. */
export function PagePending() {
  return (
    <Stack role="status" aria-busy="true" aria-label="Loading" gap="lg">
      <Skeleton h={28} w={220} />
      <Skeleton h={320} />
    </Stack>
  );
}
