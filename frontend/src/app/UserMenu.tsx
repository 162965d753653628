import { Avatar, Group, Menu, SegmentedControl, Text, UnstyledButton, useMantineColorScheme } from "@mantine/core";
import { IconDeviceDesktop, IconDevicesOff, IconLogout, IconMoon, IconSelector, IconSun } from "@tabler/icons-react";
import { useSignOut } from "@/features/auth/useSignOut";
import { useMe } from "@/shared/api/session";
import classes from "./UserMenu.module.css";

const SCHEMES = [
  { value: "light", label: <IconSun size={16} role="img" aria-label="Light" /> },
  { value: "auto", label: <IconDeviceDesktop size={16} role="img" aria-label="System" /> },
  { value: "dark", label: <IconMoon size={16} role="img" aria-label="Dark" /> },
];

/** The account menu: the signed-in user, the colour scheme, and signing out. */
export function UserMenu() {
  const me = useMe();
  const signOut = useSignOut();
  const everywhere = useSignOut("everywhere");
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  return (
    <Menu position="top-start" width={208} shadow="md" offset={6}>
      <Menu.Target>
        <UnstyledButton className={classes.user} aria-label={`${me.user_id} ${me.role}: account`}>
          <Avatar size={30} radius="xl" color="petrol" name={me.user_id} aria-hidden />
          <div className={classes.name}>
            <Text size="sm" fw={500} truncate>
              {me.user_id}
            </Text>
            <Text size="xs" c="dimmed">
              {me.role}
            </Text>
          </div>
          <IconSelector size={16} aria-hidden className={classes.sign} />
        </UnstyledButton>
      </Menu.Target>
      <Menu.Dropdown>
        <Group px="xs" py={6}>
          <SegmentedControl
            fullWidth
            w="100%"
            size="xs"
            aria-label="Colours"
            data={SCHEMES}
            value={colorScheme}
            onChange={(value) => setColorScheme(value as "light" | "dark" | "auto")}
          />
        </Group>
        <Menu.Divider />
        <Menu.Item
          leftSection={<IconLogout size={16} aria-hidden />}
          disabled={signOut.isPending}
          onClick={() => signOut.mutate()}
        >
          Sign out
        </Menu.Item>
        <Menu.Item
          leftSection={<IconDevicesOff size={16} aria-hidden />}
          disabled={everywhere.isPending}
          onClick={() => everywhere.mutate()}
        >
          Sign out everywhere
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}
