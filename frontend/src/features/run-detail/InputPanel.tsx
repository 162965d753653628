import { Paper } from "@mantine/core";
import { JsonView } from "@/shared/ui/JsonView";
import { userInput } from "./user-input";

/** The run's input. Image bytes and secrets are removed before it is stored. */
export function InputPanel({ input }: { input: Record<string, unknown> }) {
  return (
    <Paper p="md">
      <JsonView value={userInput(input)} label="the input" />
    </Paper>
  );
}
