/** This tab's side of the hub. */
import { Hub, type News, type Tab, type Wish } from "./hub";

/** How often the tab tells the hub that it is still there, in milliseconds. */
const ALIVE = 30_000;

type Listener = (news: News) => void;

/** Sends a tab's wishes to the hub, and the hub's news to whoever asked. */
export class HubClient {
  /** Whether the connection is shared with other tabs. */
  shared = false;
  private readonly listeners = new Map<number, Listener>();
  private next = 1;
  private send: (wish: Wish) => void;

  constructor() {
    this.send = this.local();
    if (typeof SharedWorker === "undefined") return;
    try {
      const worker = new SharedWorker(new URL("./hub.worker.ts", import.meta.url), { type: "module" });
      // Its script can't be loaded, for example after a new version was installed.
      worker.onerror = () => {
        if (!this.shared) return;
        this.shared = false;
        this.send = this.local();
        this.hear({ kind: "lost" });
      };
      worker.port.onmessage = ({ data }: MessageEvent<News>) => this.hear(data);
      this.send = (wish) => worker.port.postMessage(wish);
      this.shared = true;
      setInterval(() => this.send({ kind: "alive" }), ALIVE);
      window.addEventListener("pagehide", () => this.send({ kind: "bye" }));
      window.addEventListener("pageshow", ({ persisted }) => {
        if (persisted) this.send({ kind: "alive" });
      });
    } catch {
      // Forbidden by the browser's settings.
    }
  }

  /** Watches a run from after the event `cursor`. Returns a function that ends it. */
  watch(run: { dagId: string; runId: string; cursor: number }, listener: Listener): () => void {
    const id = this.listen(listener);
    this.send({ kind: "watch", id, ...run });
    return () => {
      if (this.listeners.delete(id)) this.send({ kind: "drop", id });
    };
  }

  /** Asks for the right to follow a log. Returns a function that gives it back, or null if too many are followed. */
  async follow(): Promise<(() => void) | null> {
    return new Promise((resolve) => {
      const id = this.listen((news) => {
        if (news.kind === "lost") return;
        const granted = news.kind === "follow" && news.granted;
        if (!granted) this.listeners.delete(id);
        resolve(
          granted
            ? () => {
                if (this.listeners.delete(id)) this.send({ kind: "release", id });
              }
            : null,
        );
      });
      this.send({ kind: "follow", id });
    });
  }

  private listen(listener: Listener): number {
    this.listeners.set(this.next, listener);
    return this.next++;
  }

  private hear(news: News): void {
    if (news.kind === "lost") for (const listener of [...this.listeners.values()]) listener(news);
    else this.listeners.get(news.id)?.(news);
  }

  private local(): (wish: Wish) => void {
    const hub = new Hub();
    const tab: Tab = { tell: (news) => this.hear(news) };
    return (wish) => hub.take(tab, wish);
  }
}

let client: HubClient | undefined;

/** The tab's client of the hub. */
export function sharedHub(): HubClient {
  client ??= new HubClient();
  return client;
}
