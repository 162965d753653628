import { Alert, Button, List, Text } from "@mantine/core";
import { IconAlertCircle, IconRefresh } from "@tabler/icons-react";
import { asProblem } from "../api/problem";
import { duration } from "../format/times";

interface Props {
  error: unknown;
  onRetry?: () => void;
  /** Errors that are shown elsewhere, at their fields. */
  without?: (pointer: string) => boolean;
}

/** Shows the API's problem, with a button to retry. */
export function ProblemAlert({ error, onRetry, without }: Props) {
  const problem = asProblem(error);
  const faults = problem.faults.filter((fault) => !without?.(fault.pointer));
  return (
    <Alert color="red" maw={760} icon={<IconAlertCircle aria-hidden />} title={problem.title} role="alert">
      {faults.length > 0 ? (
        <List size="sm" spacing={2}>
          {faults.map((fault) => (
            <List.Item key={fault.pointer + fault.detail}>
              {fault.pointer ? <code className="mono">{fault.pointer}</code> : null} {fault.detail}
            </List.Item>
          ))}
        </List>
      ) : (
        <Text size="sm">{problem.detail}</Text>
      )}
      {problem.retryAfter !== null ? (
        <Text size="sm" c="dimmed" mt={4}>
          Try again in {problem.retryAfter < 120 ? `${Math.ceil(problem.retryAfter)} s` : duration(problem.retryAfter)}.
        </Text>
      ) : null}
      {onRetry ? (
        <Button
          mt="sm"
          size="xs"
          variant="default"
          leftSection={<IconRefresh size={14} aria-hidden />}
          onClick={onRetry}
        >
          Try again
        </Button>
      ) : null}
    </Alert>
  );
}
