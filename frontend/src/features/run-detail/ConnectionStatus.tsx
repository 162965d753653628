import { IconBroadcast, IconCloudOff, IconHourglass, IconPlugConnected, type TablerIcon } from "@tabler/icons-react";
import type { Connection } from "@/shared/stream/run-stream";
import classes from "./ConnectionStatus.module.css";

const SIGNS: Record<Connection, { label: string; tone: string; icon: TablerIcon } | null> = {
  connecting: null,
  ended: null,
  live: { label: "Live", tone: "live", icon: IconBroadcast },
  reconnecting: { label: "Reconnecting…", tone: "caution", icon: IconPlugConnected },
  waiting: { label: "Waiting, too many runs are open", tone: "caution", icon: IconHourglass },
  offline: { label: "Offline, will catch up", tone: "caution", icon: IconCloudOff },
};

/** Whether the page is live. */
export function ConnectionStatus({ connection }: { connection: Connection }) {
  const sign = SIGNS[connection];
  return (
    <span role="status" aria-label="Connection" className={classes.sign} data-tone={sign?.tone}>
      {sign ? (
        <>
          <sign.icon size={14} aria-hidden /> {sign.label}
        </>
      ) : null}
    </span>
  );
}
