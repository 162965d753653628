/** The hub of all tabs. */
import { Hub, type Tab, type Wish } from "./hub";

const hub = new Hub();

globalThis.addEventListener("connect", (event) => {
  const [port] = (event as MessageEvent).ports;
  if (port === undefined) return;
  const tab: Tab = { tell: (news) => port.postMessage(news) };
  port.onmessage = ({ data }: MessageEvent<Wish>) => hub.take(tab, data);
});

setInterval(() => hub.sweep(), 60_000);
