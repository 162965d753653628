import { Button, Group } from "@mantine/core";
import { IconPlayerPlay, IconPlayerStop } from "@tabler/icons-react";
import type { AnswerFormProps } from "./AnswerPanel";
import classes from "./question.module.css";

/** Going on, or stopping, at a breakpoint. */
export function BreakpointForm({ disabled, pending, onSubmit }: AnswerFormProps) {
  return (
    <form
      className={classes.answer}
      onSubmit={(event) => {
        event.preventDefault();
        if (!disabled) onSubmit({ decision: "approve" });
      }}
    >
      <Group>
        <Button
          type="submit"
          loading={pending}
          disabled={disabled}
          leftSection={<IconPlayerPlay size={16} aria-hidden />}
        >
          Go on
        </Button>
        <Button
          type="button"
          variant="light"
          color="red"
          disabled={disabled || pending}
          leftSection={<IconPlayerStop size={16} aria-hidden />}
          onClick={() => onSubmit({ decision: "reject" })}
        >
          Stop
        </Button>
      </Group>
    </form>
  );
}
