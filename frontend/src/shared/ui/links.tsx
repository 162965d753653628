import { ActionIcon, type ActionIconProps, Anchor, type AnchorProps, Button, type ButtonProps } from "@mantine/core";
import { createLink } from "@tanstack/react-router";
import type { AnchorHTMLAttributes, Ref } from "react";

type Html = { ref?: Ref<HTMLAnchorElement> } & Omit<AnchorHTMLAttributes<HTMLAnchorElement>, "color" | "style">;

/** A link to another page, inside a text. */
export const AnchorLink = createLink((props: AnchorProps & Html) => <Anchor {...props} />);

/** A link to another page, as an icon; requires an `aria-label`. */
export const IconLink = createLink((props: ActionIconProps & Html) => <ActionIcon component="a" {...props} />);

/** A link to another page, as a button. */
export const ButtonLink = createLink((props: ButtonProps & Html) => <Button component="a" {...props} />);
