import { getRouteApi } from "@tanstack/react-router";
import { PageHeader } from "@/shared/ui/PageHeader";

const route = getRouteApi("/signed-in/run/$dagId");

/** Starts a run of one workflow. */
export function StartPage() {
  return <PageHeader title={route.useParams().dagId} />;
}
