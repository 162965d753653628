import { Anchor, Breadcrumbs, Group, Skeleton, Stack, Text, Tooltip } from "@mantine/core";
import { IconCopy, IconPencil, IconPlayerPlay } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { mayChange, READS_ONLY, useMe } from "@/shared/api/session";
import { templateQuery, versionQuery } from "@/shared/api/templates";
import { ScheduleSection } from "@/shared/schedule/ScheduleSection";
import { ButtonLink } from "@/shared/ui/links";
import { PageHeader } from "@/shared/ui/PageHeader";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import { StateBadge } from "@/shared/ui/StateBadge";
import { DefinitionView } from "./DefinitionView";
import { DiffView } from "./DiffView";
import { RetireButton } from "./RetireButton";
import { templateSearch } from "./search";
import { readOnlyReason } from "./useTemplateChanges";
import { VersionList } from "./VersionList";

const route = getRouteApi("/signed-in/saved/$name");

/** A template: its definition, its history and the actions available. */
export function TemplatePage() {
  const { name } = route.useParams();
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const me = useMe();
  const template = useQuery(templateQuery(name));
  const shown = search.version ?? template.data?.version;
  const version = useQuery({ ...versionQuery(name, shown ?? 1), enabled: shown !== undefined });
  const against = useQuery({
    ...versionQuery(name, search.against ?? 1),
    enabled: search.against !== undefined,
  });
  const show = (part: Record<string, unknown>) => void navigate({ search: templateSearch({ ...search, ...part }) });
  const refusal = template.data ? readOnlyReason(me, template.data) : null;
  const runs = mayChange(me.role);

  return (
    <>
      <Breadcrumbs mb={6} fz="sm">
        <Anchor component={Link} to="/saved" inherit>
          Templates
        </Anchor>
        <Text inherit c="dimmed">
          {name}
        </Text>
      </Breadcrumbs>
      <PageHeader title={name} subtitle={template.data?.description ?? undefined}>
        {template.data ? (
          <>
            {runs ? (
              <ButtonLink
                to="/new-template"
                search={{ from: name, ...(shown ? { version: shown } : {}) }}
                variant="default"
                leftSection={<IconCopy size={16} aria-hidden />}
              >
                Copy
              </ButtonLink>
            ) : null}
            {refusal === null ? (
              <>
                {template.data.active ? <RetireButton name={name} /> : null}
                <ButtonLink
                  to="/saved/$name/edit"
                  params={{ name }}
                  search={shown ? { version: shown } : {}}
                  variant="default"
                  leftSection={<IconPencil size={16} aria-hidden />}
                >
                  New version
                </ButtonLink>
              </>
            ) : null}
            {runs && template.data.active ? (
              <ButtonLink
                to="/run/$dagId"
                params={{ dagId: template.data.dag_id }}
                search={{ template: name }}
                leftSection={<IconPlayerPlay size={16} aria-hidden />}
              >
                Run
              </ButtonLink>
            ) : null}
          </>
        ) : null}
      </PageHeader>
      {template.isError ? <ProblemAlert error={template.error} onRetry={() => void template.refetch()} /> : null}
      {template.isPending ? (
        <Skeleton h={360} radius="lg" role="status" aria-busy="true" aria-label="Loading the template" />
      ) : null}
      {template.data ? (
        <Stack gap="md">
          <Group gap="sm">
            <Tooltip
              label={template.data.active ? `New runs use version ${template.data.version}` : "No runs can use it"}
            >
              <span>
                <StateBadge state={template.data.active ? "active" : "retired"} size="md" />
              </span>
            </Tooltip>
            <Text c="dimmed" size="sm">
              {template.data.active
                ? `New runs use version ${template.data.version}.`
                : "It can't be run until a version is activated again."}{" "}
              {runs ? refusal : READS_ONLY}
            </Text>
          </Group>
          {version.isError ? <ProblemAlert error={version.error} onRetry={() => void version.refetch()} /> : null}
          {against.isError ? <ProblemAlert error={against.error} onRetry={() => void against.refetch()} /> : null}
          {search.against !== undefined && version.data && against.data ? (
            <DiffView
              left={against.data}
              right={version.data}
              onClose={() => show({ against: undefined })}
              onSwap={() => show({ version: against.data.version, against: version.data.version })}
            />
          ) : version.data ? (
            <DefinitionView
              title={`Version ${version.data.version}`}
              note={version.data.version === template.data.version ? null : "not the active version"}
              definition={version.data.definition}
            />
          ) : (
            <Skeleton h={320} radius="lg" role="status" aria-busy="true" aria-label="Loading the version" />
          )}
          <ScheduleSection target={{ kind: "template", name }} />
          <VersionList
            template={template.data}
            shown={shown ?? template.data.version}
            against={search.against}
            changes={refusal === null}
            onShow={(number) => show({ version: number, against: undefined })}
            onCompare={(number) => show({ against: number, version: shown })}
          />
        </Stack>
      ) : null}
    </>
  );
}
