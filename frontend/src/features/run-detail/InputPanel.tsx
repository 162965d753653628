import { Paper } from "@mantine/core";
import { userInput } from "@/shared/api/user-input";
import { JsonView } from "@/shared/ui/JsonView";
import { TruncatedValue } from "./large/TruncatedValue";
import { isTruncated } from "./large/truncated";
import type { SnapshotOut } from "@/shared/api/schema";

/** The run's input. Image bytes and secrets are removed before it is stored. */
export function InputPanel({ input }: { input: SnapshotOut["input_data"] }) {
  return (
    <Paper p="md">
      {isTruncated(input) ? (
        <TruncatedValue value={input} name="input" />
      ) : (
        <JsonView value={userInput(input)} label="the input" />
      )}
    </Paper>
  );
}
