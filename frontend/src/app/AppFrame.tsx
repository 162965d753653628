import { AppShell, Badge, Burger, Group, NavLink, ScrollArea, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import {
  IconChartHistogram,
  IconInbox,
  IconListDetails,
  IconPlayerPlay,
  IconSettings,
  IconTemplate,
  type TablerIcon,
} from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link, type LinkProps, Outlet, useLocation } from "@tanstack/react-router";
import { openCountQuery } from "@/shared/questions/queries";
import { ButtonLink } from "@/shared/ui/links";
import { Logo } from "@/shared/ui/Logo";
import classes from "./AppFrame.module.css";
import { UserMenu } from "./UserMenu";

interface Place {
  to: LinkProps["to"] & string;
  label: string;
  icon: TablerIcon;
  /** Path prefixes for which this entry is highlighted. */
  under: string[];
}

const PLACES: Place[] = [
  { to: "/dashboard", label: "Dashboard", icon: IconChartHistogram, under: ["/dashboard"] },
  { to: "/run", label: "Run a workflow", icon: IconPlayerPlay, under: ["/run"] },
  { to: "/runs", label: "Runs", icon: IconListDetails, under: ["/runs"] },
  { to: "/inbox", label: "Inbox", icon: IconInbox, under: ["/inbox"] },
  { to: "/saved", label: "Templates", icon: IconTemplate, under: ["/saved", "/new-template"] },
  { to: "/settings", label: "Settings", icon: IconSettings, under: ["/settings"] },
];

/** The frame of all pages: navigation on the left, the page beside it. */
export function AppFrame() {
  const [opened, { toggle, close }] = useDisclosure();
  const pathname = useLocation({ select: (location) => location.pathname });
  const waiting = useQuery(openCountQuery).data ?? null;
  const isAt = (place: Place) => place.under.some((path) => pathname === path || pathname.startsWith(`${path}/`));

  return (
    <AppShell
      header={{ height: { base: 52, sm: 0 } }}
      navbar={{ width: 224, breakpoint: "sm", collapsed: { mobile: !opened } }}
      padding={0}
    >
      <a href="#page" className={classes.skip}>
        Skip to content
      </a>
      <AppShell.Header hiddenFrom="sm" className={classes.header}>
        <Group h="100%" px="md" justify="space-between">
          <Brand />
          <Group gap="xs" wrap="nowrap">
            {waiting ? (
              <ButtonLink
                to="/inbox"
                variant="light"
                color="yellow"
                size="xs"
                mih={36}
                leftSection={<IconInbox size={16} aria-hidden />}
                aria-label={`Inbox: ${waiting} open`}
              >
                {waiting}
              </ButtonLink>
            ) : null}
            <Burger
              opened={opened}
              onClick={toggle}
              size="sm"
              aria-label={opened ? "Close navigation" : "Navigation"}
            />
          </Group>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar className={classes.navbar} aria-label="Main">
        <AppShell.Section px="md" pt="md" pb="lg" visibleFrom="sm">
          <Brand />
        </AppShell.Section>
        <AppShell.Section grow component={ScrollArea} px="xs" pt={{ base: "md", sm: 0 }}>
          <Stack gap={2}>
            {PLACES.map((place) => (
              <NavLink
                key={place.to}
                component={Link}
                to={place.to}
                label={place.label}
                leftSection={<place.icon size={18} stroke={1.7} aria-hidden />}
                rightSection={
                  place.to === "/inbox" && waiting ? (
                    <Badge variant="light" color="yellow" radius="xl" aria-label={`${waiting} open`}>
                      {waiting}
                    </Badge>
                  ) : undefined
                }
                active={isAt(place)}
                aria-current={isAt(place) ? "page" : undefined}
                className={classes.link}
                onClick={close}
              />
            ))}
          </Stack>
        </AppShell.Section>
        <AppShell.Section p="xs" className={classes.foot}>
          <UserMenu />
        </AppShell.Section>
      </AppShell.Navbar>
      <AppShell.Main id="page" tabIndex={-1} className={classes.main}>
        <div className={classes.page}>
          <Outlet />
        </div>
      </AppShell.Main>
    </AppShell>
  );
}

function Brand() {
  return (
    <Group gap={10} wrap="nowrap">
      <Logo />
      <Text fw={600} size="lg" lts="-0.01em">
        LangGraph Flow
      </Text>
    </Group>
  );
}
