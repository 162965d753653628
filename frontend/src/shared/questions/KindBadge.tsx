import { IconHandStop, IconMessageQuestion, IconTool } from "@tabler/icons-react";
import type { QuestionOut } from "../api/schema";
import badge from "../ui/StateBadge.module.css";

const KINDS = {
  question: { label: "Question", icon: IconMessageQuestion },
  approval: { label: "Approval", icon: IconTool },
  breakpoint: { label: "Breakpoint", icon: IconHandStop },
} as const;

/** What kind of pause a question is, in the colours of whether it still waits. */
export function KindBadge({ question: { kind, state }, iconOnly }: { question: QuestionOut; iconOnly?: boolean }) {
  const { label, icon: Icon } = KINDS[kind];
  const tone = state === "open" ? "caution" : state === "answered" ? "good" : "off";
  const words = state === "open" ? label : `${label}, ${state}`;
  return (
    <span className={badge.badge} data-tone={tone} data-icon-only={iconOnly === true ? true : undefined}>
      <Icon size={14} stroke={2} aria-hidden={!iconOnly} {...(iconOnly ? { role: "img", "aria-label": words } : {})} />
      {iconOnly ? null : words}
    </span>
  );
}
