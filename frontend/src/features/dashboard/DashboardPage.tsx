import { Alert, Group, Tabs, Text } from "@mantine/core";
import { IconActivityHeartbeat, IconAlertTriangle, IconBug, IconChartBar, IconRobot } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { preferencesQuery } from "@/shared/api/preferences";
import type { SystemHealth } from "@/shared/api/schema";
import { seesAll, useMe } from "@/shared/api/session";
import { DEFAULT_RANGE } from "@/shared/format/time-range";
import { AnchorLink } from "@/shared/ui/links";
import { PageHeader } from "@/shared/ui/PageHeader";
import { RangePicker } from "@/shared/ui/RangePicker";
import { lookOf } from "@/shared/ui/states";
import { bySeverity, partOf } from "./advice";
import { AgentsView } from "./AgentsView";
import classes from "./DashboardPage.module.css";
import { ErrorsView } from "./ErrorsView";
import { Filters } from "./Filters";
import { FiguresSkeleton } from "./FiguresSkeleton";
import { HealthView } from "./HealthView";
import { healthQuery, type Scope } from "./queries";
import { RunsDrawer } from "./RunsDrawer";
import { RunsView } from "./RunsView";
import { type DashboardSearch, dashboardSearch, type View } from "./search";

const route = getRouteApi("/signed-in/dashboard");

/** Runs, agents, errors and system health over a time range. */
export function DashboardPage() {
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const me = useMe();
  const preferences = useQuery(preferencesQuery);
  const health = useQuery(healthQuery);
  const view = search.view ?? "runs";
  // The preferred range isn't known immediately; figures for another range must not flash up first.
  const range = search.range ?? (preferences.isPending ? null : (preferences.data?.dashboard_range ?? DEFAULT_RANGE));
  const change = (part: Partial<Record<keyof DashboardSearch, unknown>>) =>
    void navigate({ search: (known) => dashboardSearch({ ...known, ...part }), replace: !("view" in part) });
  const scope: Scope | null = range === null ? null : { range, dag: search.dag, user: search.user };

  return (
    <>
      <PageHeader
        title="Dashboard"
        subtitle={
          seesAll(me.role)
            ? "What ran, how well it went, and what it cost."
            : "Your runs: how well they went, and what they cost."
        }
      >
        {view === "health" || range === null ? null : (
          <RangePicker label="Time" value={range} onChange={(given) => change({ range: given })} />
        )}
      </PageHeader>
      {view === "health" ? null : <HealthNotice health={health.data} />}
      <Tabs value={view} onChange={(given) => change({ view: given })} keepMounted={false} className={classes.tabs}>
        <Tabs.List mb="md">
          <Tabs.Tab value="runs" leftSection={<IconChartBar size={16} aria-hidden />}>
            Runs
          </Tabs.Tab>
          <Tabs.Tab value="agents" leftSection={<IconRobot size={16} aria-hidden />}>
            Agents
          </Tabs.Tab>
          <Tabs.Tab value="errors" leftSection={<IconBug size={16} aria-hidden />}>
            Errors
          </Tabs.Tab>
          <Tabs.Tab
            value="health"
            leftSection={<IconActivityHeartbeat size={16} aria-hidden />}
            rightSection={<Dot health={health.data} />}
          >
            System
          </Tabs.Tab>
        </Tabs.List>
        {view === "health" ? null : (
          <Filters
            dag={search.dag}
            user={search.user}
            withUser={seesAll(me.role)}
            onChange={change}
            {...(scope ? { scope } : {})}
          />
        )}
        {(["runs", "agents", "errors"] as const).map((name) => (
          <Tabs.Panel key={name} value={name}>
            {scope ? <Figures view={name} scope={scope} search={search} onChange={change} /> : <FiguresSkeleton />}
          </Tabs.Panel>
        ))}
        <Tabs.Panel value="health">
          <HealthView health={health} />
        </Tabs.Panel>
      </Tabs>
      {scope && search.behind ? (
        <RunsDrawer scope={scope} behind={search.behind} onClose={() => change({ behind: undefined })} />
      ) : null}
    </>
  );
}

interface FiguresProps {
  view: Exclude<View, "health">;
  scope: Scope;
  search: DashboardSearch;
  onChange: (part: Partial<DashboardSearch>) => void;
}

function Figures({ view, scope, search, onChange }: FiguresProps) {
  switch (view) {
    case "runs":
      return (
        <RunsView scope={scope} measure={search.measure ?? "runs"} onMeasure={(measure) => onChange({ measure })} />
      );
    case "agents":
      return <AgentsView scope={scope} sort={search.sort} onSort={(sort) => onChange({ sort })} />;
    case "errors":
      return <ErrorsView scope={scope} />;
  }
}

/** Warns that the system is unhealthy, above figures that may be affected. */
function HealthNotice({ health }: { health: SystemHealth | undefined }) {
  if (health === undefined || health.status === "healthy") return null;
  const ill = bySeverity(health.components).filter(([, part]) => part.status !== "healthy");
  const names = ill.map(([name]) => partOf(name).label);
  const listed = names.length > 3 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ");
  return (
    <Alert
      mb="md"
      py="xs"
      color={health.status === "unhealthy" ? "red" : "yellow"}
      icon={<IconAlertTriangle aria-hidden />}
      role="status"
    >
      <Group gap="xs">
        <Text inherit>
          The system is {health.status}: {listed}.
        </Text>
        <AnchorLink
          to="/dashboard"
          search={(known) => dashboardSearch({ ...known, view: "health" })}
          inherit
          fw={550}
          underline="always"
        >
          What to do
        </AnchorLink>
      </Group>
    </Alert>
  );
}

function Dot({ health }: { health: SystemHealth | undefined }) {
  if (health === undefined) return null;
  const { label, tone, icon: Icon } = lookOf(health.status);
  return <Icon size={15} role="img" aria-label={label} color={`var(--state-${tone})`} />;
}
