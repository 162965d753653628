import { useMemo } from "react";
import { stringify } from "../api/exact-json";
import { CopyButton } from "./CopyButton";
import classes from "./JsonView.module.css";

/** A value as JSON, with a button to copy it. `label` names the value. */
export function JsonView({ value, label }: { value: unknown; label: string }) {
  const text = useMemo(() => stringify(value ?? null, 2), [value]);
  return (
    <div className={classes.json}>
      <div className={classes.copy}>
        <CopyButton text={text} label={`Copy ${label}`} />
      </div>
      <pre tabIndex={0} aria-label={`JSON of ${label}`}>
        {text}
      </pre>
    </div>
  );
}
