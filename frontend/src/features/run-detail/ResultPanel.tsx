import { Group, Paper, SegmentedControl, Text } from "@mantine/core";
import { IconFileOff, IconHourglass } from "@tabler/icons-react";
import { useState } from "react";
import { EmptyState } from "@/shared/ui/EmptyState";
import { JsonView } from "@/shared/ui/JsonView";
import { isActive } from "@/shared/ui/states";
import { TruncatedValue } from "./large/TruncatedValue";
import { isTruncated } from "./large/truncated";
import { ResultValue } from "./ResultValue";

/** The result of the run's last agent task: readable, or as JSON. */
export function ResultPanel({ result, state }: { result: unknown; state: string }) {
  const [form, setForm] = useState("read");
  if (result === null || result === undefined) {
    return (
      <Paper>
        {isActive(state) ? (
          <EmptyState icon={IconHourglass} title="No result yet">
            The result appears here when the run has finished.
          </EmptyState>
        ) : (
          <EmptyState icon={IconFileOff} title="No result">
            {state === "success"
              ? "No agent of this run returned anything."
              : "The run ended before an agent returned anything; its errors say why."}
          </EmptyState>
        )}
      </Paper>
    );
  }
  if (isTruncated(result)) {
    return (
      <Paper p="md">
        <TruncatedValue value={result} name="result" />
      </Paper>
    );
  }
  return (
    <Paper p="md">
      <Group justify="space-between" mb="md">
        <Text c="dimmed" size="sm">
          {state === "success" ? "Returned by the last agent task." : "Returned by agents before the run ended."}
        </Text>
        <SegmentedControl
          size="xs"
          aria-label="Result format"
          data={[
            { value: "read", label: "Readable" },
            { value: "json", label: "JSON" },
          ]}
          value={form}
          onChange={setForm}
        />
      </Group>
      {form === "json" ? <JsonView value={result} label="the result" /> : <ResultValue value={result} />}
    </Paper>
  );
}
