import { Skeleton, Stack } from "@mantine/core";

/** Shown while a page's code loads. */
export function PagePending() {
  return (
    <Stack role="status" aria-busy="true" aria-label="Loading" gap="lg">
      <Skeleton h={28} w={220} />
      <Skeleton h={320} />
    </Stack>
  );
}
