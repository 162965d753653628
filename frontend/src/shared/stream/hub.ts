/**
 * One connection for the runs that all tabs watch, and the right to follow logs.
 *
 * Browsers allow six connections per host over HTTP/1.1, for all tabs together. The hub runs in a `SharedWorker` (or in
 * the page, where there is none), so the tabs share one stream of events, and at most `LOGS` of them follow a log.
 */
import { EVENT_TYPES, type RunEvent } from "./events";

/** What a tab asks for. `id` is its own choice. */
export type Wish =
  | { kind: "watch"; id: number; dagId: string; runId: string; cursor: number }
  | { kind: "drop"; id: number }
  | { kind: "follow"; id: number }
  | { kind: "release"; id: number }
  | { kind: "alive" }
  | { kind: "bye" };

/** `waiting`: the connection carries as many runs as it can, and this one isn't among them. */
export type Link = "connecting" | "live" | "reconnecting" | "waiting";

/** What a tab gets. `lost`: the hub has forgotten the tab, which has to ask again. */
export type News =
  | { kind: "event"; id: number; type: RunEvent["type"] | "gap"; seq: number | null; data: string }
  | { kind: "link"; id: number; link: Link }
  | { kind: "refused"; id: number }
  | { kind: "follow"; id: number; granted: boolean }
  | { kind: "lost" };

/** A tab, as the hub sees it. */
export interface Tab {
  tell: (news: News) => void;
}

interface Watch {
  tab: Tab;
  id: number;
  run: string;
  cursor: string;
  ended: boolean;
}

/** Logs followed at a time. With the stream they leave three of six connections for everything else. */
export const LOGS = 2;

/** Limits of one stream: the backend's, and that of proxies on the length of an address. */
const RUNS = 50;
const ADDRESS = 6_000;

/** How long changes are gathered before the stream is opened anew, in milliseconds. */
const GATHER = 50;

/** How long an open stream has to last, in milliseconds: while the backend is away, a proxy opens and closes streams. */
const LASTING = 300;

/** The maximum of seconds between attempts to reconnect. */
const LONGEST_WAIT = 20;

/** How long a tab may be silent, in milliseconds. Browsers slow down the timers of hidden tabs to one a minute. */
const SILENCE = 240_000;

/** Keeps the stream open, and resumes every run after its last event. */
export class Hub {
  private watches: Watch[] = [];
  /** Those that the present stream carries, in the order of its address. */
  private carried: Watch[] = [];
  private followers: { tab: Tab; id: number }[] = [];
  private readonly seen = new Map<Tab, number>();
  private source: EventSource | null = null;
  private failures = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private proof: ReturnType<typeof setTimeout> | undefined;

  /** Takes a tab's wish. */
  take(tab: Tab, wish: Wish): void {
    if (wish.kind === "bye") {
      this.forget(tab);
      return;
    }
    if (wish.kind === "alive" && !this.seen.has(tab)) tab.tell({ kind: "lost" });
    this.seen.set(tab, Date.now());
    switch (wish.kind) {
      case "watch": {
        const run = `${wish.dagId}/${wish.runId}`;
        this.watches.push({ tab, id: wish.id, run, cursor: String(wish.cursor), ended: false });
        tab.tell({ kind: "link", id: wish.id, link: this.failures > 0 ? "reconnecting" : "connecting" });
        this.change(this.source === null && this.timer === undefined ? 0 : GATHER);
        break;
      }
      case "drop":
        this.watches = this.watches.filter((watch) => watch.tab !== tab || watch.id !== wish.id);
        this.tidy();
        break;
      case "follow": {
        const granted = this.followers.length < LOGS;
        if (granted) this.followers.push({ tab, id: wish.id });
        tab.tell({ kind: "follow", id: wish.id, granted });
        break;
      }
      case "release":
        this.followers = this.followers.filter((one) => one.tab !== tab || one.id !== wish.id);
        break;
    }
  }

  /** Forgets tabs that have crashed, or that the browser has put to sleep. */
  sweep(): void {
    for (const [tab, seen] of this.seen) if (Date.now() - seen > SILENCE) this.forget(tab);
  }

  private forget(tab: Tab): void {
    this.seen.delete(tab);
    this.watches = this.watches.filter((watch) => watch.tab !== tab);
    this.followers = this.followers.filter((one) => one.tab !== tab);
    this.tidy();
  }

  /** After a watch is gone: closes a stream that nobody needs, and makes room for those that wait. */
  private tidy(): void {
    const open = this.watches.filter((watch) => !watch.ended);
    if (open.length === 0) this.disconnect();
    else if (open.some((watch) => !this.carried.includes(watch)) || this.idle()) this.change(GATHER);
  }

  /** Whether most of the stream is for runs that nobody watches any more. */
  private idle(): boolean {
    const unused = this.carried.filter((watch) => !watch.ended && !this.watches.includes(watch));
    return unused.length * 2 > this.carried.length;
  }

  private change(wait: number): void {
    if (wait === 0) this.connect();
    else this.timer ??= setTimeout(this.connect, wait);
  }

  private readonly connect = (): void => {
    this.disconnect();
    const open = this.watches.filter((watch) => !watch.ended);
    if (open.length === 0) return;
    let length = 0;
    // The newest first: they are more likely to be looked at.
    this.carried = open
      .toReversed()
      .filter((watch) => (length += encodeURIComponent(watch.run).length + 25) < ADDRESS)
      .slice(0, RUNS);
    for (const watch of open) if (!this.carried.includes(watch)) tell(watch, "waiting");
    const query = new URLSearchParams(this.carried.map((watch) => ["run", watch.run]));
    query.set("last_event_id", this.carried.map((watch) => watch.cursor).join(","));
    const source = new EventSource(`/workflow-status/streams?${query}`);
    this.source = source;
    source.onopen = () => {
      clearTimeout(this.proof);
      this.proof = setTimeout(this.isLive, LASTING);
    };
    source.onerror = (event) => {
      if (event instanceof MessageEvent) return; // an `error` event of a run
      if (source !== this.source) return;
      clearTimeout(this.proof);
      this.tellAll("reconnecting");
      // Rejected, or not a stream: the browser gives up, so reconnecting is up to us.
      if (source.readyState === EventSource.CLOSED) this.comeBack();
    };
    for (const type of [...EVENT_TYPES, "gap", "problem"] as const) {
      source.addEventListener(type, (event) => {
        if (source === this.source && event instanceof MessageEvent) this.pass(type, event);
      });
    }
  };

  private pass(type: RunEvent["type"] | "gap" | "problem", message: MessageEvent): void {
    const [position = "", cursors = ""] = message.lastEventId.split(";");
    const watch = this.carried[Number(position)];
    const given = cursors.split(",")[Number(position)];
    if (watch === undefined || given === undefined) return;
    const cursor = given.replace("-", "");
    watch.ended = given.endsWith("-");
    const seq = cursor === "" || cursor === watch.cursor ? null : Number(cursor);
    watch.cursor = cursor;
    const { tab, id } = watch;
    if (!this.watches.includes(watch)) return;
    if (type === "problem") tab.tell({ kind: "refused", id });
    else tab.tell({ kind: "event", id, type, seq, data: String(message.data) });
  }

  private comeBack(): void {
    this.disconnect();
    this.failures += 1;
    if (this.failures === 1) for (const { tab, id } of this.watches) tab.tell({ kind: "refused", id });
    const wait = Math.min(2 ** (this.failures - 1), LONGEST_WAIT) * (0.75 + Math.random() / 2);
    this.change(wait * 1000);
  }

  private disconnect(): void {
    clearTimeout(this.timer);
    clearTimeout(this.proof);
    this.timer = undefined;
    this.source?.close();
    this.source = null;
    this.carried = [];
  }

  private readonly isLive = (): void => {
    this.failures = 0;
    this.tellAll("live");
  };

  private tellAll(link: Link): void {
    for (const watch of this.carried) if (!watch.ended) tell(watch, link);
  }
}

function tell({ tab, id }: Watch, link: Link): void {
  tab.tell({ kind: "link", id, link });
}
