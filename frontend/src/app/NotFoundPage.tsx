import { Button } from "@mantine/core";
import { IconMapPinOff } from "@tabler/icons-react";
import { Link } from "@tanstack/react-router";
import { EmptyState } from "@/shared/ui/EmptyState";

/** No page has this address. */
export function NotFoundPage() {
  return (
    <EmptyState
      icon={IconMapPinOff}
      title="There is no such page"
      action={
        <Button component={Link} to="/runs">
          To the runs
        </Button>
      }
    >
      The address may be misspelt, or the page has gone.
    </EmptyState>
  );
}
