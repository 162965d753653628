import { getRouteApi } from "@tanstack/react-router";
import { PageHeader } from "@/shared/ui/PageHeader";
import { AuditLog } from "./AuditLog";

const route = getRouteApi("/signed-in/settings/audit");

/** The audit log, for Admins. */
export function AuditPage() {
  const search = route.useSearch();
  const navigate = route.useNavigate();
  return (
    <>
      <PageHeader title="Audit log" subtitle="Who did what, when and from where. Nobody can change it here." />
      <AuditLog filters={search} onChange={(filters) => void navigate({ search: filters, replace: true })} />
    </>
  );
}
