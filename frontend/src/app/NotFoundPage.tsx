import { IconMapPinOff } from "@tabler/icons-react";
import { EmptyState } from "@/shared/ui/EmptyState";
import { ButtonLink } from "@/shared/ui/links";

/** No page has this address. */
export function NotFoundPage() {
  return (
    <EmptyState
      icon={IconMapPinOff}
      title="There is no such page"
      action={<ButtonLink to="/runs">To the runs</ButtonLink>}
    >
      The address may be misspelt, or the page has gone.
    </EmptyState>
  );
}
