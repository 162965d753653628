import { parseAnswer } from "../api/exact-json";
import { EVENT_TYPES, type RunEvent } from "./events";
import { applyEvents, type RunModel } from "./run-model";

/** `offline`: the browser has no network; `reconnecting`: the backend is away; `ended`: the run has finished. */
export type Connection = "connecting" | "live" | "reconnecting" | "offline" | "ended";

export interface StreamState {
  model: RunModel;
  connection: Connection;
}

/** The maximum of seconds between attempts to reconnect. */
const LONGEST_WAIT = 20;

/** The minimum of milliseconds between changes of the model: text still flows, and the page stays responsive. */
const PACE = 100;

/**
 * Keeps a run's stream open and applies its events to a model, before a frame is painted and at most once per `PACE`.
 *
 * A lost connection resumes after the last event. `onGap` is called if events have been pruned: the owner then reads a
 * snapshot and calls `resume`. `onRefused` is called if the backend denies access.
 */
export class RunStream {
  private state: StreamState;
  private source: EventSource | null = null;
  private waiting: RunEvent[] = [];
  private frame: (() => void) | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private failures = 0;
  /** When the model last changed. */
  private changed = -PACE;
  private readonly listeners = new Set<() => void>();
  private readonly url: string;
  private readonly onGap: () => void;
  private readonly onRefused: () => void;

  constructor(url: string, model: RunModel, on: { gap: () => void; refused: () => void }) {
    this.url = url;
    this.onGap = on.gap;
    this.onRefused = on.refused;
    this.state = { model, connection: "connecting" };
    window.addEventListener("online", this.open);
    window.addEventListener("offline", this.goOffline);
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
    this.set({ connection: this.failures > 0 ? "reconnecting" : "connecting" });
    this.flush(); // queued events precede the cursor
    const source = new EventSource(`${this.url}?last_event_id=${this.state.model.seq}`);
    this.source = source;
    source.onopen = () => {
      this.failures = 0;
      this.set({ connection: "live" });
    };
    source.onerror = (event) => {
      if (event instanceof MessageEvent) return; // an `error` event of the run
      this.set({ connection: navigator.onLine ? "reconnecting" : "offline" });
      // Rejected, or not a stream: the browser gives up, so reconnecting is up to us.
      if (source.readyState === EventSource.CLOSED) this.comeBack();
    };
    for (const type of EVENT_TYPES) {
      source.addEventListener(type, (event) => {
        if (event instanceof MessageEvent) this.take(type, event);
      });
    }
    source.addEventListener("gap", () => {
      this.disconnect();
      this.onGap();
    });
  };

  private take(type: RunEvent["type"], message: MessageEvent): void {
    const seq = message.lastEventId === "" ? null : Number(message.lastEventId);
    this.waiting.push({ seq, type, data: parseAnswer(String(message.data)) } as RunEvent);
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

  private comeBack(): void {
    this.disconnect();
    this.failures += 1;
    if (this.failures === 1) this.onRefused();
    const wait = Math.min(2 ** (this.failures - 1), LONGEST_WAIT) * (0.75 + Math.random() / 2);
    this.timer = setTimeout(this.open, wait * 1000);
  }

  private readonly goOffline = (): void => {
    if (this.state.connection === "ended") return;
    this.disconnect();
    this.set({ connection: "offline" });
  };

  private disconnect(): void {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
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
