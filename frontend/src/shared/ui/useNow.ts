import { useEffect, useState } from "react";

/** The time in milliseconds, every `interval` ms anew; a clock that stands still is not asked (`active` false). */
export function useNow(interval: number, active = true): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    if (!active) return;
    const timer = setInterval(() => setNow(Date.now()), interval);
    return () => clearInterval(timer);
  }, [interval, active]);
  return now;
}
