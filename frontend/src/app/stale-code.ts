const KEY = "reloaded-for-code";
/** Milliseconds in which the page reloads at most once: if that didn't help, another reload won't. */
const ONCE_IN = 60_000;

/**
 * Reloads a page that was opened before a new version was deployed and now requests code that no longer exists.
 * Does nothing while offline; whatever requested the code reports the failure.
 */
export function reloadOnStaleCode(): void {
  window.addEventListener("vite:preloadError", (event) => {
    const last = Number(window.sessionStorage.getItem(KEY) ?? 0);
    if (!navigator.onLine || Date.now() - last < ONCE_IN) return;
    event.preventDefault();
    window.sessionStorage.setItem(KEY, String(Date.now()));
    window.location.reload();
  });
}
