import { SimpleGrid, Skeleton, Stack } from "@mantine/core";

/** Shown while figures load. */
export function FiguresSkeleton({ tiles = 5 }: { tiles?: number }) {
  return (
    <Stack gap="md" role="status" aria-busy="true" aria-label="Loading figures">
      <SimpleGrid cols={{ base: 2, sm: 3, lg: tiles }} spacing="md">
        {Array.from({ length: tiles }, (_, index) => (
          <Skeleton key={index} h={108} radius="lg" />
        ))}
      </SimpleGrid>
      <Skeleton h={330} radius="lg" />
    </Stack>
  );
}
