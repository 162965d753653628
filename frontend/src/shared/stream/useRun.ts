import { queryOptions, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useMemo, useState, useSyncExternalStore } from "react";
import { answer, api } from "../api/client";
import type { SnapshotOut } from "../api/schema";
import { isActive } from "../ui/states";
import { EMPTY, fromSnapshot, type RunModel } from "./run-model";
import { type Connection, RunStream, type StreamState } from "./run-stream";
import { sharedHub } from "./shared-hub";

/** A log with more events isn't replayed from its start; earlier tries and output are left out then. */
const REPLAY_LIMIT = 20_000;

/** How long after its end a failed run without a known reason is asked for it often, in milliseconds. */
const REASON_LIMIT = 120_000;

export const snapshotQuery = (dagId: string, runId: string) =>
  queryOptions({
    queryKey: ["run", dagId, runId],
    queryFn: () =>
      answer(
        api.GET("/workflow-status/{dag_id}/{dag_run_id}", { params: { path: { dag_id: dagId, dag_run_id: runId } } }),
      ),
    // The stream reports what happens. Polling finds links that appear later, runs that someone else restarts, and why a
    // run failed, which may become known some seconds after its end.
    refetchInterval: ({ state: { data } }) =>
      data && awaitsReason(data) ? 2_000 : data && isActive(data.state) ? 10_000 : 30_000,
  });

function awaitsReason({ state, reason, finished_at: end }: SnapshotOut): boolean {
  return state === "failed" && reason === null && end !== null && Date.now() - Date.parse(end) < REASON_LIMIT;
}

export interface WatchedRun {
  snapshot: SnapshotOut;
  model: RunModel;
  connection: Connection;
}

/** A run, live; `data` is undefined until its snapshot has been read. */
export function useRun(dagId: string, runId: string) {
  const client = useQueryClient();
  const query = useQuery(snapshotQuery(dagId, runId));
  const snapshot = query.data;
  const [stream, setStream] = useState<{ stream: RunStream; from: number } | null>(null);
  const known = snapshot !== undefined;

  useEffect(() => {
    const options = snapshotQuery(dagId, runId);
    const first = client.getQueryData(options.queryKey);
    if (!known || first === undefined) return;
    const again = () => client.query({ ...options, staleTime: 0 });
    const opened = new RunStream(
      sharedHub(),
      { dagId, runId },
      first.last_event_id > REPLAY_LIMIT ? fromSnapshot(first) : EMPTY,
      {
        gap: () =>
          void again().then(
            (fresh) => opened.resume(fromSnapshot(fresh)),
            () => undefined,
          ),
        // The snapshot is rejected for the same reason, and that error is shown.
        refused: () => void again().catch(() => undefined),
      },
    );
    // eslint-disable-next-line react-hooks/set-state-in-effect -- the stream lives as long as this effect
    setStream({ stream: opened, from: first.last_event_id });
    return () => {
      opened.close();
      setStream(null);
    };
  }, [client, dagId, runId, known]);

  const state = useSyncExternalStore<StreamState | null>(
    stream?.stream.subscribe ?? never,
    () => stream?.stream.current() ?? null,
  );
  const ended = state?.connection === "ended";
  const told = state?.model.seq ?? 0;

  useEffect(() => {
    // Only a snapshot knows which errors a finished run recovered from, and its links.
    if (ended) void client.invalidateQueries({ queryKey: ["run", dagId, runId] });
  }, [client, dagId, runId, ended]);
  useEffect(() => {
    // Someone has restarted it, now or earlier, so more follows after the first attempt's end.
    if (ended && snapshot && snapshot.last_event_id > told) {
      stream?.stream.resume(stream.stream.current().model);
    }
  }, [ended, snapshot, told, stream]);

  const shown = useMemo(() => (snapshot ? fromSnapshot(snapshot) : EMPTY), [snapshot]);
  // While the log is replayed, the run is shown in the state of its snapshot.
  const model = state && stream && told >= stream.from ? state.model : shown;
  const data: WatchedRun | undefined = snapshot && {
    snapshot,
    model,
    connection: state?.connection ?? "connecting",
  };
  return { data, error: query.error, isPending: query.isPending, refetch: query.refetch };
}

function never(): () => void {
  return () => undefined;
}
