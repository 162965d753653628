import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { FakeSource } from "./fake-source";
import { EMPTY } from "./run-model";
import { RunStream } from "./run-stream";
import { HubClient } from "./shared-hub";

const address = (cursor: number) => `/workflow-status/streams?run=dag%2Frun%2F1&last_event_id=${cursor}`;
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
    stream = new RunStream(new HubClient(), { dagId: "dag", runId: "run/1" }, EMPTY, { gap, refused });
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
    expect(FakeSource.last.url).toBe(address(7));
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
    expect(FakeSource.last.url).toBe(address(3));
  });

  it("closes at the run's end, and continues when the run does", () => {
    FakeSource.last.open();
    FakeSource.last.tell("end", 9, { state: "failed" });
    expect(stream.current()).toMatchObject({ connection: "ended", model: { state: "failed", seq: 9 } });
    expect(FakeSource.last.readyState).toBe(FakeSource.CLOSED);
    window.dispatchEvent(new Event("offline"));
    expect(stream.current().connection).toBe("ended");
    stream.resume(stream.current().model);
    expect(FakeSource.last.url).toBe(address(9));
  });

  it("requests a snapshot when events have been pruned", () => {
    FakeSource.last.open();
    FakeSource.last.tell("gap", 40, { from: 1, to: 40 });
    expect(gap).toHaveBeenCalledTimes(1);
    expect(FakeSource.last.readyState).toBe(FakeSource.CLOSED);
    stream.resume({ ...EMPTY, seq: 44 });
    expect(FakeSource.last.url).toBe(address(44));
  });
});
