import { Stack } from "@mantine/core";
import type { ReactNode } from "react";

/** Wraps figures, dimmed while they still belong to the previous query. */
export function DimWhileStale({ stale, children }: { stale: boolean; children: ReactNode }) {
  return (
    <Stack gap="md" aria-busy={stale} style={{ opacity: stale ? 0.55 : 1, transition: "opacity 120ms" }}>
      {children}
    </Stack>
  );
}
