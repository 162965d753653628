import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { FakeSource } from "./fake-source";
import { Hub, LOGS, type News, type Tab, type Wish } from "./hub";

class FakeTab implements Tab {
  readonly heard: News[] = [];
  constructor(private readonly hub: Hub) {}

  readonly tell = (news: News) => {
    this.heard.push(news);
  };

  wish(wish: Wish): void {
    this.hub.take(this, wish);
  }

  watch(id: number, runId: string, cursor = 0): void {
    this.wish({ kind: "watch", id, dagId: "dag", runId, cursor });
  }

  events(): unknown[] {
    return this.heard.flatMap((news) => (news.kind === "event" ? [[news.id, news.type, news.seq]] : []));
  }

  link(id: number): string | undefined {
    return this.heard.flatMap((news) => (news.kind === "link" && news.id === id ? [news.link] : [])).at(-1);
  }
}

describe("the hub", () => {
  let hub: Hub;
  let tabs: FakeTab[];

  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal("EventSource", FakeSource);
    FakeSource.opened = [];
    hub = new Hub();
    tabs = Array.from({ length: 12 }, () => new FakeTab(hub));
  });

  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  const tab = (index: number): FakeTab => {
    const found = tabs[index];
    if (!found) throw new Error(`no tab ${index}`);
    return found;
  };
  const open = () => FakeSource.opened.filter((source) => source.readyState !== FakeSource.CLOSED);
  const query = () => new URL(FakeSource.last.url, "http://localhost").searchParams;

  it("has one stream for all tabs, however many watch", () => {
    tabs.forEach((one, index) => one.watch(1, `run ${index}`, index));
    vi.advanceTimersByTime(100);
    FakeSource.last.open();
    expect(open()).toHaveLength(1);
    expect(FakeSource.opened).toHaveLength(2); // at once for the first, and once for all the others
    expect(query().getAll("run")).toEqual(tabs.map((_, index) => `dag/run ${index}`).reverse());
    expect(query().get("last_event_id")).toBe("11,10,9,8,7,6,5,4,3,2,1,0");
    expect(tabs.map((one) => one.link(1))).toEqual(Array(12).fill("live"));
  });

  it("gives each tab its runs' events, with their own cursors", () => {
    tab(0).watch(1, "a");
    tab(1).watch(1, "b", 5);
    vi.advanceTimersByTime(100);
    const source = FakeSource.last; // carries b, a
    source.send("workflow_update", "1;5,", {});
    source.send("task_update", "1;5,3", {});
    source.send("token", "0;6,3", {});
    source.send("end", "0;6-,3", {});
    expect(tab(0).events()).toEqual([
      [1, "workflow_update", null],
      [1, "task_update", 3],
    ]);
    expect(tab(1).events()).toEqual([
      [1, "token", 6],
      [1, "end", null],
    ]);
    tab(2).watch(1, "c");
    vi.advanceTimersByTime(100);
    expect(query().getAll("run")).toEqual(["dag/c", "dag/a"]);
    expect(query().get("last_event_id")).toBe("0,3");
  });

  it("lets those wait that don't fit, until there is room", () => {
    for (let id = 1; id <= 51; id += 1) tab(0).watch(id, `${id}`);
    vi.advanceTimersByTime(100);
    FakeSource.last.open();
    expect([tab(0).link(1), tab(0).link(51)]).toEqual(["waiting", "live"]);
    tab(0).wish({ kind: "drop", id: 51 });
    vi.advanceTimersByTime(100);
    FakeSource.last.open();
    expect(tab(0).link(1)).toBe("live");
    expect(open()).toHaveLength(1);
  });

  it("keeps addresses short enough for proxies", () => {
    for (let id = 1; id <= 30; id += 1) tab(0).watch(id, `${id}`.padEnd(250, "é"));
    vi.advanceTimersByTime(100);
    expect(FakeSource.last.url.length).toBeLessThan(7_000);
    expect(tab(0).link(1)).toBe("waiting");
  });

  it("tells a tab of a run that it can't read, and goes on with the others", () => {
    tab(0).watch(1, "a");
    FakeSource.last.send("problem", "0;0-", { status: 404 });
    expect(tab(0).heard.at(-1)).toEqual({ kind: "refused", id: 1 });
  });

  it("isn't live while a proxy opens and closes streams in the backend's place", () => {
    tab(0).watch(1, "a");
    FakeSource.last.onopen?.();
    FakeSource.last.lose();
    vi.advanceTimersByTime(1_000);
    expect(tab(0).link(1)).toBe("reconnecting");
  });

  it("closes the stream with the last tab", () => {
    tab(0).watch(1, "a");
    tab(1).watch(1, "b");
    vi.advanceTimersByTime(100);
    tab(0).wish({ kind: "bye" });
    tab(1).wish({ kind: "drop", id: 1 });
    vi.advanceTimersByTime(100);
    expect(open()).toEqual([]);
  });

  it("forgets a tab that has crashed, and tells one that was only asleep", () => {
    tab(0).watch(1, "a");
    tab(0).wish({ kind: "follow", id: 2 });
    vi.advanceTimersByTime(300_000);
    hub.sweep();
    expect(open()).toEqual([]);
    tab(0).wish({ kind: "alive" });
    expect(tab(0).heard.at(-1)).toEqual({ kind: "lost" });
  });

  it("lets a few tabs follow logs", () => {
    tabs.forEach((one) => one.wish({ kind: "follow", id: 1 }));
    const granted = () => tabs.filter((one) => one.heard.some((news) => news.kind === "follow" && news.granted));
    expect(granted()).toHaveLength(LOGS);
    tab(0).wish({ kind: "release", id: 1 });
    tab(11).wish({ kind: "follow", id: 2 });
    expect(granted()).toContain(tab(11));
  });
});
