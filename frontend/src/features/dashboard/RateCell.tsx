import { percent } from "@/shared/format/amounts";
import classes from "./figures.module.css";

/** A success rate as a bar and a percentage. */
export function RateCell({ rate }: { rate: number | null }) {
  return (
    <span className={classes.share}>
      {rate === null ? null : (
        <span className={classes.bar} aria-hidden>
          <span style={{ width: `${rate * 100}%` }} />
        </span>
      )}
      <span className={classes.figure}>{percent(rate)}</span>
    </span>
  );
}
