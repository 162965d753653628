import { Anchor, Breadcrumbs, Skeleton, Text } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { answer, api } from "@/shared/api/client";
import type { TemplateBody } from "@/shared/api/schema";
import { useMe } from "@/shared/api/session";
import { AnchorLink } from "@/shared/ui/links";
import { templateQuery, versionQuery } from "@/shared/api/templates";
import { PageHeader } from "@/shared/ui/PageHeader";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { pretty } from "./definition";
import { DraftForm } from "./DraftForm";
import { schemaQuery } from "./queries";
import { readOnlyReason } from "./useTemplateChanges";

const route = getRouteApi("/signed-in/saved/$name/edit");

/** Creates a template's next version, starting from an earlier one. */
export function NewVersionPage() {
  const { name } = route.useParams();
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const client = useQueryClient();
  const me = useMe();
  const schema = useQuery(schemaQuery);
  // The latest version when editing began: a newer one is reported, not overwritten.
  const template = useQuery({ ...templateQuery(name), staleTime: Infinity, refetchOnMount: "always" });
  const base = search.version ?? template.data?.latest_version;
  const version = useQuery({ ...versionQuery(name, base ?? 1), enabled: base !== undefined });
  const refusal = template.data ? readOnlyReason(me, template.data) : null;
  const failed = [schema, template, version].find((query) => query.error);
  const latest = template.data?.latest_version;

  return (
    <>
      <Breadcrumbs mb={6} fz="sm">
        <Anchor component={Link} to="/saved" inherit>
          Templates
        </Anchor>
        <AnchorLink to="/saved/$name" params={{ name }} inherit>
          {name}
        </AnchorLink>
        <Text inherit c="dimmed">
          New version
        </Text>
      </Breadcrumbs>
      <PageHeader
        title={latest === undefined ? "New version" : `Version ${latest + 1} of ${name}`}
        subtitle={
          base === undefined ? undefined : `Starts from version ${base}. Versions never change; this creates a new one.`
        }
      />
      {failed ? <ProblemAlert error={failed.error} onRetry={() => void failed.refetch()} /> : null}
      {refusal ? <Text>{refusal}</Text> : null}
      {!refusal && !failed && (!schema.data || !version.data || latest === undefined) ? (
        <Skeleton h={560} radius="md" role="status" aria-busy="true" aria-label="Loading the editor" />
      ) : null}
      {!refusal && schema.data && version.data && latest !== undefined ? (
        <DraftForm
          key={`${name}/${version.data.version}`}
          initial={pretty(version.data.definition)}
          isNew={false}
          schema={schema.data}
          submitLabel={`Create version ${latest + 1}`}
          conflict={
            <>
              A newer version than {latest}, from which you started, has been created.{" "}
              <AnchorLink to="/saved/$name" params={{ name }} target="_blank" inherit>
                Open it
              </AnchorLink>{" "}
              in another tab, copy your changes, and start from it.
            </>
          }
          onSubmit={async ({ definition, activate }) => {
            const made = await answer(
              api.POST("/templates/{name}/versions", {
                params: { path: { name } },
                body: { definition: definition as TemplateBody["definition"], base_version: latest, activate },
              }),
            );
            await client.invalidateQueries({ queryKey: ["templates"] });
            await navigate({ to: "/saved/$name", params: { name }, search: { version: made.version } });
          }}
        />
      ) : null}
    </>
  );
}
