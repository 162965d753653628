import { Loader, Text } from "@mantine/core";
import { useEffect, useLayoutEffect, useRef, useState } from "react";
import { problemOf } from "@/shared/api/problem";
import type { SnapshotOut } from "@/shared/api/schema";
import type { TaskRun } from "@/shared/stream/run-model";
import { CopyButton } from "@/shared/ui/CopyButton";
import { ProblemAlert } from "@/shared/ui/ProblemAlert";
import classes from "./TaskLog.module.css";

/** The number of characters kept of a log, from its end. */
const KEPT = 400_000;

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
  const box = useRef<HTMLPreElement>(null);
  const { dag_id: dagId, dag_run_id: runId } = run;
  const { taskId, mapIndex } = task;

  useEffect(() => {
    const abort = new AbortController();
    const parts = [dagId, runId, "tasks", taskId, "logs"].map(encodeURIComponent).join("/");
    const query = new URLSearchParams({ try_number: String(tryNumber), map_index: String(mapIndex), follow: "true" });
    read(`/workflow-status/${parts}?${query}`, abort.signal, (piece) =>
      setText((before) => (before + piece).slice(-KEPT)),
    )
      .catch((thrown: unknown) => {
        if (!abort.signal.aborted) setError(thrown);
      })
      .finally(() => {
        if (!abort.signal.aborted) setReading(false);
      });
    return () => abort.abort();
  }, [dagId, runId, taskId, mapIndex, tryNumber, round]);

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
