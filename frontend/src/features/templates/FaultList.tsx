import { Text, UnstyledButton } from "@mantine/core";
import { IconAlertCircle, IconCircleCheck } from "@tabler/icons-react";
import { placeOf } from "./editor-setup";
import classes from "./FaultList.module.css";
import { lineOf } from "./json-positions";
import type { Fault } from "./json-schema";

interface Props {
  text: string;
  faults: readonly Fault[];
  onGoTo: (fault: Fault) => void;
}

/** The errors with their lines; each one jumps to its place. */
export function FaultList({ text, faults, onGoTo }: Props) {
  if (faults.length === 0) {
    return (
      <Text size="sm" c="dimmed" className={classes.fine} role="status">
        <IconCircleCheck size={16} aria-hidden /> No errors found by the schema.
      </Text>
    );
  }
  return (
    <ul className={classes.faults} aria-label="Errors">
      {faults.map((fault) => (
        <li key={fault.pointer + fault.detail}>
          <UnstyledButton className={classes.fault} onClick={() => onGoTo(fault)}>
            <IconAlertCircle size={16} aria-hidden />
            <span className={classes.line}>Line {lineOf(text, placeOf(text, fault).from)}</span>
            <span>
              {fault.pointer ? <code className="mono">{fault.pointer}</code> : null} {fault.detail}
            </span>
          </UnstyledButton>
        </li>
      ))}
    </ul>
  );
}
