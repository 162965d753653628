import { getRouteApi } from "@tanstack/react-router";
import { PageHeader } from "@/shared/ui/PageHeader";

const route = getRouteApi("/signed-in/runs/$dagId/$runId");

/** One run, live. */
export function RunPage() {
  return <PageHeader title={route.useParams().runId} />;
}
