import classes from "./StateBadge.module.css";
import { lookOf } from "./states";

interface Props {
  state: string | null | undefined;
  size?: "sm" | "md";
  /** Show only the icon; screen readers still get the label. */
  iconOnly?: boolean;
}

/** A state as a coloured icon with its label: never by colour alone. */
export function StateBadge({ state, size = "sm", iconOnly = false }: Props) {
  const { label, tone, icon: Icon } = lookOf(state);
  return (
    <span className={classes.badge} data-tone={tone} data-size={size} data-icon-only={iconOnly || undefined}>
      <Icon
        size={size === "sm" ? 14 : 16}
        stroke={2}
        className={state === "running" ? classes.spin : undefined}
        aria-hidden={!iconOnly}
        {...(iconOnly ? { role: "img", "aria-label": label } : {})}
      />
      {iconOnly ? null : label}
    </span>
  );
}
