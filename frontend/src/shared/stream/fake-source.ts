import { vi } from "vitest";

/** The browser's `EventSource` in a test's hands. */
export class FakeSource extends EventTarget {
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
    vi.advanceTimersByTime(300);
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

  /** An event of the only run. */
  tell(type: string, seq: number, data: object): void {
    this.send(type, `0;${seq}${type === "end" ? "-" : ""}`, data);
  }

  send(type: string, id: string, data: object): void {
    const message = new MessageEvent(type, { data: JSON.stringify(data), lastEventId: id });
    this.dispatchEvent(message);
    if (type === "error") this.onerror?.(message);
  }
}
