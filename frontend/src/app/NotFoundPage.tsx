import { IconMapPinOff } from "@tabler/icons-react";
import { EmptyState } from "@/shared/ui/EmptyState";
import { ButtonLink } from "@/shared/ui/links";

/** Shown when no page matches the URL. */
export function NotFoundPage() {
  return (
    <EmptyState icon={IconMapPinOff} title="Page not found" action={<ButtonLink to="/runs">Go to runs</ButtonLink>}>
      The address may be misspelt, or the page no longer exists.
    </EmptyState>
  );
}
