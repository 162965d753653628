import { Anchor, Breadcrumbs, Skeleton, Text } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { answer, api } from "@/shared/api/client";
import type { TemplateBody } from "@/shared/api/schema";
import { mayChange, READS_ONLY, useMe } from "@/shared/api/session";
import { versionQuery } from "@/shared/api/templates";
import { PageHeader } from "@/shared/ui/PageHeader";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { pretty } from "./definition";
import { FIRST_DRAFT } from "./draft";
import { DraftForm } from "./DraftForm";
import { schemaQuery } from "./queries";

const route = getRouteApi("/signed-in/new-template");

/** Creates a template, from scratch or from another one. */
export function NewTemplatePage() {
  const { from, version } = route.useSearch();
  const navigate = route.useNavigate();
  const client = useQueryClient();
  const me = useMe();
  const schema = useQuery(schemaQuery);
  const copied = from !== undefined;
  const other = useQuery({ ...versionQuery(from ?? "", version ?? 1), enabled: copied });
  const ready = schema.data !== undefined && (!copied || other.data !== undefined);

  return (
    <>
      <Breadcrumbs mb={6} fz="sm">
        <Anchor component={Link} to="/saved" inherit>
          Templates
        </Anchor>
        <Text inherit c="dimmed">
          New
        </Text>
      </Breadcrumbs>
      <PageHeader
        title="New template"
        subtitle={
          copied
            ? `A copy of version ${version ?? 1} of ${from}, under a new name.`
            : "Its first version becomes active immediately."
        }
      />
      {schema.error ? <ProblemAlert error={schema.error} onRetry={() => void schema.refetch()} /> : null}
      {other.error ? <ProblemAlert error={other.error} onRetry={() => void other.refetch()} /> : null}
      {mayChange(me.role) ? null : <Text>{READS_ONLY}</Text>}
      {mayChange(me.role) && !ready && !schema.error && !other.error ? (
        <Skeleton h={560} radius="md" role="status" aria-busy="true" aria-label="Loading the editor" />
      ) : null}
      {mayChange(me.role) && ready ? (
        <DraftForm
          initial={pretty(copied ? other.data?.definition : FIRST_DRAFT)}
          isNew
          schema={schema.data}
          submitLabel="Create template"
          onSubmit={async ({ name, definition }) => {
            await answer(
              api.POST("/templates", { body: { name, definition: definition as TemplateBody["definition"] } }),
            );
            await client.invalidateQueries({ queryKey: ["templates"] });
            await navigate({ to: "/saved/$name", params: { name } });
          }}
        />
      ) : null}
    </>
  );
}
