const KEY = "reloaded-for-code";
/** Milliseconds within which one reload is enough: if it did not help, another one won't. */
const ONCE_IN = 60_000;

/**
 * A page that was opened before a new version was installed asks for code that is no longer there: loads the page anew.
 * Without a network nothing is done; what asked for the code says that it failed.
 */
export function reloadWhenCodeIsGone(): void {
  window.addEventListener("vite:preloadError", (event) => {
    const last = Number(window.sessionStorage.getItem(KEY) ?? 0);
    if (!navigator.onLine || Date.now() - last < ONCE_IN) return;
    event.preventDefault();
    window.sessionStorage.setItem(KEY, String(Date.now()));
    window.location.reload();
  });
}
