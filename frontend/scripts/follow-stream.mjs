// Follows an event stream as foreign clients do, and prints each event as a line of JSON. A test runs it:
//   node scripts/follow-stream.mjs eventsource|fetch-event-source <url> <token> <number of `end` events>
import { stdout } from "node:process";
import { EventSource } from "eventsource";
import { fetchEventSource } from "@microsoft/fetch-event-source";

const [client, url, token, ends] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${token}` };
const types = ["workflow_update", "task_update", "agent_update", "token", "error", "gap", "problem", "end"];
let ended = 0;

/** Prints an event; returns whether it is the last one. */
function take({ id, event, data }) {
  stdout.write(`${JSON.stringify({ id, event, data: JSON.parse(data) })}\n`);
  if (event === "end") ended += 1;
  return ended === Number(ends);
}

if (client === "eventsource") {
  const source = new EventSource(url, {
    fetch: (address, init) => fetch(address, { ...init, headers: { ...init.headers, ...headers } }),
  });
  source.onerror = (error) => {
    if (source.readyState === EventSource.CLOSED) throw new Error(`gave up: ${error.code} ${error.message}`);
  };
  for (const type of types) {
    source.addEventListener(type, (event) => {
      // An `error` without data is the client's own.
      if (event.data === undefined) return;
      if (take({ id: event.lastEventId, event: type, data: event.data })) source.close();
    });
  }
} else {
  // It is made for pages.
  globalThis.window = globalThis;
  globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
  await fetchEventSource(url, { headers, onmessage: take });
}
