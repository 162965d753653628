import {
  IconAlertTriangle,
  IconArchive,
  IconBan,
  IconCircleCheck,
  IconCircleDashed,
  IconCircleX,
  IconClock,
  IconClockPause,
  IconHandStop,
  IconLoader2,
  IconPlayerPause,
  IconPlayerSkipForward,
  IconPlayerStop,
  IconRefresh,
  type TablerIcon,
} from "@tabler/icons-react";

/** The tone of a state; each is a pair of colours, `--state-<tone>` on `--state-<tone>-soft`. */
export type Tone = "live" | "good" | "bad" | "caution" | "idle" | "off";

export interface StateLook {
  label: string;
  tone: Tone;
  icon: TablerIcon;
}

const LOOKS: Record<string, StateLook> = {
  queued: { label: "Queued", tone: "idle", icon: IconClock },
  scheduled: { label: "Scheduled", tone: "idle", icon: IconClock },
  running: { label: "Running", tone: "live", icon: IconLoader2 },
  restarting: { label: "Restarting", tone: "caution", icon: IconRefresh },
  deferred: { label: "Deferred", tone: "live", icon: IconClockPause },
  up_for_retry: { label: "Up for retry", tone: "caution", icon: IconRefresh },
  up_for_reschedule: { label: "Rescheduled", tone: "caution", icon: IconClockPause },
  awaiting_input: { label: "Awaiting input", tone: "caution", icon: IconHandStop },
  success: { label: "Success", tone: "good", icon: IconCircleCheck },
  failed: { label: "Failed", tone: "bad", icon: IconCircleX },
  upstream_failed: { label: "Upstream failed", tone: "bad", icon: IconAlertTriangle },
  cancelled: { label: "Cancelled", tone: "off", icon: IconBan },
  stopped: { label: "Stopped", tone: "off", icon: IconPlayerStop },
  skipped: { label: "Skipped", tone: "off", icon: IconPlayerSkipForward },
  removed: { label: "Removed", tone: "off", icon: IconBan },
  healthy: { label: "Healthy", tone: "good", icon: IconCircleCheck },
  degraded: { label: "Degraded", tone: "caution", icon: IconAlertTriangle },
  unhealthy: { label: "Unhealthy", tone: "bad", icon: IconCircleX },
  active: { label: "Active", tone: "good", icon: IconCircleCheck },
  paused: { label: "Paused", tone: "off", icon: IconPlayerPause },
  retired: { label: "Retired", tone: "off", icon: IconArchive },
};

/** The look of a run's, task's, agent's, node's, component's, template's or schedule's state; null is a task without one. */
export function lookOf(state: string | null | undefined): StateLook {
  if (!state) return { label: "Waiting", tone: "idle", icon: IconCircleDashed };
  return LOOKS[state] ?? { label: state.replaceAll("_", " "), tone: "idle", icon: IconCircleDashed };
}

export const RUN_STATES = ["queued", "running", "awaiting_input", "success", "failed", "cancelled"] as const;
export type RunState = (typeof RUN_STATES)[number];

/** A run's progress; null if it ended early: the bar then shows how far it got, and a number would mislead. */
export function progressLabel(state: string, progress: number): string | null {
  return state === "failed" || state === "cancelled" ? null : `${progress} %`;
}

/** Whether a run is active. */
export function isActive(state: string): boolean {
  return state === "queued" || state === "running" || state === "awaiting_input";
}
