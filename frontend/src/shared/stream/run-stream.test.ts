import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { EMPTY } from "./run-model";
import { RunStream } from "./run-stream";

/** The browser's `EventSource` in a test's hands. */
class FakeSource extends EventTarget {
  static readonly CLOSED = 2;
  static opened: FakeSource[] = [];
  static get last(): FakeSource {
    const last = FakeSource.opened.at(-1);
    if (!last) throw new Error("no stream was opened");
    return last;
  }

  readyState = 0;
  onopen: (() => void) | null = null;
  onerror: ((event: Event) => void) | null = null;

  constructor(readonly url: string) {
    super();
    FakeSource.opened.push(this);
  }

  open(): void {
    this.readyState = 1;
    this.onopen?.();
  }

  close(): void {
    this.readyState = FakeSource.CLOSED;
  }

  /** The server refuses, or answers with what is no stream. */
  refuse(): void {
    this.readyState = FakeSource.CLOSED;
    this.onerror?.(new Event("error"));
  }

  /** The connection is lost; the browser itself comes back. */
  lose(): void {
    this.readyState = 0;
    this.onerror?.(new Event("error"));
  }

  tell(type: string, seq: number, data: object): void {
    const message = new MessageEvent(type, { data: JSON.stringify(data), lastEventId: String(seq) });
    this.dispatchEvent(message);
    if (type === "error") this.onerror?.(message);
  }
}

const token = { task_id: "look", map_index: -1, try_number: 1, agent: "vision", node: "analyse", call: 1, attempt: 1 };

describe("a run's stream", () => {
  let online = true;
  let stream: RunStream;
  const gap = vi.fn();
  const refused = vi.fn();

  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal("EventSource", FakeSource);
    vi.spyOn(navigator, "onLine", "get").mockImplementation(() => online);
    online = true;
    FakeSource.opened = [];
    gap.mockReset();
    refused.mockReset();
    stream = new RunStream("/stream", EMPTY, { gap, refused });
  });

  afterEach(() => {
    stream.close();
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  const words = () => stream.current().model.tasks.get("look")?.agents[0]?.calls[0]?.text;

  it("applies a burst at once: one change per frame", () => {
    const changed = vi.fn();
    FakeSource.last.open();
    stream.subscribe(changed);
    for (let seq = 1; seq <= 50; seq += 1) FakeSource.last.tell("token", seq, { ...token, text: "." });
    expect(changed).not.toHaveBeenCalled();
    vi.runOnlyPendingTimers();
    expect(changed).toHaveBeenCalledTimes(1);
    expect(words()).toHaveLength(50);
  });

  it("changes at most ten times a second, however many events arrive", () => {
    const changed = vi.fn();
    FakeSource.last.open();
    stream.subscribe(changed);
    for (let seq = 1; seq <= 100; seq += 1) {
      FakeSource.last.tell("token", seq, { ...token, text: "." });
      vi.advanceTimersByTime(10);
    }
    vi.advanceTimersByTime(200);
    expect(words()).toHaveLength(100);
    expect(changed.mock.calls.length).toBeGreaterThan(5);
    expect(changed.mock.calls.length).toBeLessThan(12);
  });

  it("distinguishes a run's error from a lost connection", () => {
    FakeSource.last.open();
    FakeSource.last.tell("error", 1, { category: "server" });
    vi.runOnlyPendingTimers();
    expect(stream.current()).toMatchObject({ connection: "live", model: { errors: [{ category: "server" }] } });
    FakeSource.last.lose();
    expect(stream.current().connection).toBe("reconnecting");
    expect(FakeSource.opened).toHaveLength(1);
  });

  it("resumes after the last event when rejected, with growing delays", () => {
    FakeSource.last.tell("token", 7, { ...token, text: "a" });
    FakeSource.last.refuse();
    expect(refused).toHaveBeenCalledTimes(1);
    vi.advanceTimersByTime(1500);
    expect(FakeSource.opened).toHaveLength(2);
    expect(FakeSource.last.url).toBe("/stream?last_event_id=7");
    FakeSource.last.refuse();
    vi.advanceTimersByTime(1400);
    expect(FakeSource.opened).toHaveLength(2);
    vi.advanceTimersByTime(1200);
    expect(FakeSource.opened).toHaveLength(3);
    FakeSource.last.open();
    expect(stream.current().connection).toBe("live");
    expect(refused).toHaveBeenCalledTimes(1);
  });

  it("waits for the network and catches up", () => {
    FakeSource.last.open();
    FakeSource.last.tell("token", 3, { ...token, text: "a" });
    online = false;
    window.dispatchEvent(new Event("offline"));
    expect(stream.current().connection).toBe("offline");
    expect(FakeSource.last.readyState).toBe(FakeSource.CLOSED);
    online = true;
    window.dispatchEvent(new Event("online"));
    expect(FakeSource.last.url).toBe("/stream?last_event_id=3");
  });

  it("closes at the run's end, and continues when the run does", () => {
    FakeSource.last.open();
    FakeSource.last.tell("end", 9, { state: "failed" });
    expect(stream.current()).toMatchObject({ connection: "ended", model: { state: "failed", seq: 9 } });
    expect(FakeSource.last.readyState).toBe(FakeSource.CLOSED);
    window.dispatchEvent(new Event("offline"));
    expect(stream.current().connection).toBe("ended");
    stream.resume(stream.current().model);
    expect(FakeSource.last.url).toBe("/stream?last_event_id=9");
  });

  it("requests a snapshot when events have been pruned", () => {
    FakeSource.last.open();
    FakeSource.last.tell("gap", 40, { from: 1, to: 40 });
    expect(gap).toHaveBeenCalledTimes(1);
    expect(FakeSource.last.readyState).toBe(FakeSource.CLOSED);
    stream.resume({ ...EMPTY, seq: 44 });
    expect(FakeSource.last.url).toBe("/stream?last_event_id=44");
  });
});
