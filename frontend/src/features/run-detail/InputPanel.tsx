import { Paper } from "@mantine/core";
import { JsonView } from "@/shared/ui/JsonView";
import { ownInput } from "./own-input";

/** What the run was given. Pictures' bytes and secrets are taken out before it is stored. */
export function InputPanel({ input }: { input: Record<string, unknown> }) {
  return (
    <Paper p="md">
      <JsonView value={ownInput(input)} label="the input" />
    </Paper>
  );
}
