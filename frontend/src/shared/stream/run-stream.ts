import { parseAnswer } from "../api/exact-json";
import type { RunEvent } from "./events";
import type { Link, News } from "./hub";
import { applyEvents, type RunModel } from "./run-model";
import type { HubClient } from "./shared-hub";

/** `offline`: the browser has no network, or the page is hidden; `ended`: the run has finished. */
export type Connection = Link | "offline" | "ended";

export interface StreamState {
  model: RunModel;
  connection: Connection;
}

/** The minimum of milliseconds between changes of the model: text still flows, and the page stays responsive. */
const PACE = 100;

/**
 * Watches a run's events and applies them to a model, before a frame is painted and at most once per `PACE`.
 *
 * A lost connection resumes after the last event. `onGap` is called if events have been pruned: the owner then reads a
 * snapshot and calls `resume`. `onRefused` is called if the backend denies access.
 */
export class RunStream {
  private state: StreamState;
  private stop: (() => void) | null = null;
  private waiting: RunEvent[] = [];
  private frame: (() => void) | null = null;
  /** When the model last changed. */
  private changed = -PACE;
  private readonly listeners = new Set<() => void>();
  private readonly hub: HubClient;
  private readonly run: { dagId: string; runId: string };
  private readonly onGap: () => void;
  private readonly onRefused: () => void;

  constructor(
    hub: HubClient,
    run: { dagId: string; runId: string },
    model: RunModel,
    on: { gap: () => void; refused: () => void },
  ) {
    this.hub = hub;
    this.run = run;
    this.onGap = on.gap;
    this.onRefused = on.refused;
    this.state = { model, connection: "connecting" };
    window.addEventListener("online", this.open);
    window.addEventListener("offline", this.goOffline);
    document.addEventListener("visibilitychange", this.changeVisibility);
    this.open();
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly current = (): StreamState => this.state;

  /** Resume from this model: after a gap, or when a finished run continues. */
  resume(model: RunModel): void {
    this.flush();
    this.set({ model });
    this.open();
  }

  close(): void {
    window.removeEventListener("online", this.open);
    window.removeEventListener("offline", this.goOffline);
    document.removeEventListener("visibilitychange", this.changeVisibility);
    this.disconnect();
    this.frame?.();
    this.frame = null;
    this.listeners.clear();
  }

  private readonly open = (): void => {
    this.disconnect();
    if (!navigator.onLine) {
      this.set({ connection: "offline" });
      return;
    }
    this.flush(); // queued events precede the cursor
    this.stop = this.hub.watch({ ...this.run, cursor: this.state.model.seq }, this.hear);
  };

  private readonly hear = (news: News): void => {
    switch (news.kind) {
      case "link":
        this.set({ connection: news.link });
        break;
      case "refused":
        this.onRefused();
        break;
      case "lost":
        this.open();
        break;
      case "event":
        if (news.type === "gap") {
          this.disconnect();
          this.onGap();
        } else this.take(news.type, news.seq, news.data);
        break;
    }
  };

  private take(type: RunEvent["type"], seq: number | null, data: string): void {
    this.waiting.push({ seq, type, data: parseAnswer(data) } as RunEvent);
    if (type === "end") {
      this.disconnect();
      this.flush();
      this.set({ connection: "ended" });
      return;
    }
    this.frame ??= nextFrame(this.changed + PACE - performance.now(), () => {
      this.frame = null;
      this.flush();
    });
  }

  private flush(): void {
    if (this.waiting.length === 0) return;
    const model = applyEvents(this.state.model, this.waiting);
    this.waiting = [];
    this.changed = performance.now();
    this.set({ model });
  }

  private readonly goOffline = (): void => {
    if (this.state.connection === "ended") return;
    this.disconnect();
    this.set({ connection: "offline" });
  };

  /** A connection that isn't shared is only for pages that somebody looks at. */
  private readonly changeVisibility = (): void => {
    if (this.hub.shared || this.state.connection === "ended") return;
    if (document.hidden) this.goOffline();
    else this.open();
  };

  private disconnect(): void {
    this.stop?.();
    this.stop = null;
  }

  private set(change: Partial<StreamState>): void {
    this.state = { ...this.state, ...change };
    for (const listener of this.listeners) listener();
  }
}

/**
 * Calls back before the first paint that is at least `wait` milliseconds away; in a hidden page, which is never painted,
 * soon. Returns a function that cancels it.
 */
function nextFrame(wait: number, callback: () => void): () => void {
  let frame = 0;
  const paint = () => {
    frame = requestAnimationFrame(callback);
  };
  let timer: ReturnType<typeof setTimeout> | undefined;
  if (document.hidden) timer = setTimeout(callback, 500);
  else if (wait > 0) timer = setTimeout(paint, wait);
  else paint();
  return () => {
    clearTimeout(timer);
    cancelAnimationFrame(frame);
  };
}
