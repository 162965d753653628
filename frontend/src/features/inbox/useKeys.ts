import { useLocalStorage } from "@mantine/hooks";
import { useEffect, useEffectEvent } from "react";

/** Whether keys without a modifier do something. People who speak to their computer, or hit keys by accident, don't want it. */
export function useSingleKeys() {
  return useLocalStorage({ key: "single-keys", defaultValue: true, getInitialValueInEffect: false });
}

/** Where keys mean something else: fields, and what lies above the page. */
const ELSEWHERE =
  'input, textarea, select, [contenteditable=""], [contenteditable="true"], [role="textbox"], [role="dialog"], [role="listbox"], [role="menu"]';

/** Calls what is bound to a key, wherever the focus is on the page, except in fields and dialogs. */
export function useKeys(bindings: Record<string, () => void>): void {
  const [enabled] = useSingleKeys();
  const press = useEffectEvent((event: KeyboardEvent) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target instanceof Element && event.target.closest(ELSEWHERE)) return;
    if (document.querySelector('[role="dialog"]')) return;
    const action = Object.hasOwn(bindings, event.key) ? bindings[event.key] : undefined;
    if (!action) return;
    event.preventDefault();
    action();
  });
  useEffect(() => {
    if (!enabled) return;
    const listener = (event: KeyboardEvent) => press(event);
    window.addEventListener("keydown", listener);
    return () => window.removeEventListener("keydown", listener);
  }, [enabled]);
}
