import { Loader, Text } from "@mantine/core";
import { useDocumentVisibility } from "@mantine/hooks";
import { useEffect, useLayoutEffect, useRef, useState } from "react";
import { asProblem, problemOf } from "@/shared/api/problem";
import type { SnapshotOut } from "@/shared/api/schema";
import type { TaskRun } from "@/shared/stream/run-model";
import { sharedHub } from "@/shared/stream/shared-hub";
import { CopyButton } from "@/shared/ui/CopyButton";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import classes from "./TaskLog.module.css";

/** The number of characters kept of a log, from its end. */
const KEPT = 400_000;

/** Milliseconds between readings of a log that isn't followed. */
const PAUSE = 4_000;

interface Props {
  run: SnapshotOut;
  task: TaskRun;
  tryNumber: number;
}

/** The log of a try, followed as it grows. */
export function TaskLog({ run, task, tryNumber }: Props) {
  const [text, setText] = useState("");
  const [reading, setReading] = useState(true);
  const [error, setError] = useState<unknown>(null);
  const [round, setRound] = useState(0);
  const [crowded, setCrowded] = useState(false);
  const visible = useDocumentVisibility() === "visible";
  const box = useRef<HTMLPreElement>(null);
  const over = useRef(false);
  const { dag_id: dagId, dag_run_id: runId } = run;
  const { taskId, mapIndex } = task;

  useEffect(() => {
    over.current = task.tries.some((one) => one.number === tryNumber && one.finishedAt !== null);
  });

  useEffect(() => {
    if (!visible) return; // a hidden page holds no connection; what it shows is read again later
    const abort = new AbortController();
    const parts = [dagId, runId, "tasks", taskId, "logs"].map(encodeURIComponent).join("/");
    const query = new URLSearchParams({ try_number: String(tryNumber), map_index: String(mapIndex) });
    const show = (piece: string, first: boolean) => setText((before) => ((first ? "" : before) + piece).slice(-KEPT));
    follow(`/workflow-status/${parts}?${query}`, abort.signal, { show, crowded: setCrowded, over: () => over.current })
      .catch((thrown: unknown) => {
        if (!abort.signal.aborted) setError(thrown);
      })
      .finally(() => {
        if (!abort.signal.aborted) setReading(false);
      });
    return () => abort.abort();
  }, [dagId, runId, taskId, mapIndex, tryNumber, round, visible]);

  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const nearEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 400;
    if (nearEnd) element.scrollTop = element.scrollHeight;
  }, [text]);

  return (
    <>
      {error ? (
        <ProblemAlert
          error={error}
          onRetry={() => {
            setText("");
            setError(null);
            setReading(true);
            setRound(round + 1);
          }}
        />
      ) : null}
      <div className={classes.log}>
        <div className={classes.tools}>
          {crowded ? (
            <Text size="xs" c="dimmed" role="status">
              Updates every few seconds: other tabs are following logs
            </Text>
          ) : null}
          {reading ? <Loader size={14} aria-label="Loading the log" /> : null}
          <CopyButton text={text} label="Copy log" />
        </div>
        <pre ref={box} tabIndex={0} aria-label={`Log of ${task.key}, try ${tryNumber}`}>
          {text}
        </pre>
        {!text && !reading && !error ? (
          <Text size="sm" c="dimmed" p="md">
            The log is empty.
          </Text>
        ) : null}
      </div>
    </>
  );
}

interface Reading {
  /** Called with each piece; the first one of a reading replaces what an earlier one showed. */
  show: (piece: string, first: boolean) => void;
  /** Called with whether other tabs follow as many logs as the browser's connections allow. */
  crowded: (crowded: boolean) => void;
  over: () => boolean;
}

/** Follows a log until its try has ended; if too many are followed, reads it again every few seconds instead. */
async function follow(url: string, signal: AbortSignal, { show, crowded, over }: Reading): Promise<void> {
  for (;;) {
    const release = await sharedHub().follow();
    const wasOver = over();
    let first = true;
    try {
      if (signal.aborted) return;
      crowded(release === null && !wasOver);
      await read(`${url}&follow=${release !== null}`, signal, (piece) => {
        show(piece, first);
        first = false;
      });
    } catch (thrown) {
      // The log of a try that hasn't begun yet.
      if (release !== null || wasOver || asProblem(thrown).status !== 404) throw thrown;
    } finally {
      release?.();
    }
    if (release !== null || wasOver) return;
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}

/** Reads a text stream. Throws `ApiProblem` if the request is rejected. */
async function read(url: string, signal: AbortSignal, onPiece: (piece: string) => void): Promise<void> {
  const response = await fetch(url, { signal, headers: { Accept: "text/plain" } });
  if (!response.ok) throw problemOf(response, await response.json().catch(() => null));
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  while (reader) {
    const { done, value } = await reader.read();
    if (done) return;
    onPiece(value);
  }
}
