import { Stack } from "@mantine/core";
import type { ReactNode } from "react";

/** Figures; dimmed while they are those of what was asked before. */
export function Fresh({ stale, children }: { stale: boolean; children: ReactNode }) {
  return (
    <Stack gap="md" aria-busy={stale} style={{ opacity: stale ? 0.55 : 1, transition: "opacity 120ms" }}>
      {children}
    </Stack>
  );
}
