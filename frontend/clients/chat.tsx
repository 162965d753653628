/**
 * A chat with each of LangGraph's two hooks named `useStream`, as its tests need one.
 *
 * `?hook=` chooses the hook, `&assistant=` the assistant and `&thread=` a thread. The test finds the hook's result and a
 * client at `window.chat`, and the access token in `window.token`.
 */
import { useStream as useProtocolStream } from "@langchain/react";
import { Client } from "@langchain/langgraph-sdk";
import { useStream as useModesStream } from "@langchain/langgraph-sdk/react";
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

declare global {
  interface Window {
    token: string;
    chat: { stream: unknown; client: Client };
  }
}

const query = new URLSearchParams(location.search);
const assistantId = query.get("assistant") ?? "agent";
const apiUrl = `${location.origin}/langgraph`;
const transport = query.get("transport") === "websocket" ? "websocket" : "sse";
const defaultHeaders: Record<string, string> = { Authorization: `Bearer ${window.token}` };
const client = new Client({ apiUrl, apiKey: null, defaultHeaders });

interface Said {
  id?: string | undefined;
  type: string;
  content: unknown;
}

interface Shown {
  messages: Said[];
  isLoading: boolean;
  interrupt?: { value?: unknown } | undefined;
  error: unknown;
}

function useThread(): [string | null, (id: string) => void] {
  const [thread, setThread] = useState(query.get("thread"));
  return [
    thread,
    (id) => {
      query.set("thread", id);
      history.replaceState({}, "", `?${query}`);
      setThread(id);
    },
  ];
}

/** `runs/stream` with its modes. */
function ModesChat() {
  const [threadId, onThreadId] = useThread();
  const stream = useModesStream<{ messages: Said[] }>({
    apiUrl,
    assistantId,
    defaultHeaders,
    threadId,
    onThreadId,
    messagesKey: "messages",
    reconnectOnMount: true,
    fetchStateHistory: true,
  });
  return <Chat stream={stream} />;
}

/** `commands` and `stream/events`. */
function ProtocolChat() {
  const [threadId, onThreadId] = useThread();
  // A browser's WebSocket has no headers, but the page's cookie.
  const auth = transport === "sse" ? { defaultHeaders } : {};
  const stream = useProtocolStream({ apiUrl, assistantId, ...auth, threadId, onThreadId, transport });
  return <Chat stream={stream} />;
}

function Chat({ stream }: { stream: Shown }) {
  useEffect(() => {
    window.chat = { stream, client };
  });
  return (
    <main>
      <ol>
        {stream.messages.map((message, index) => (
          <li key={message.id ?? index}>
            {message.type}: {textOf(message.content)}
          </li>
        ))}
      </ol>
      <output>
        {stream.isLoading ? "busy" : "idle"}
        {stream.interrupt?.value !== undefined && ` asks ${JSON.stringify(stream.interrupt.value)}`}
        {Boolean(stream.error) && ` failed ${String(stream.error)}`}
      </output>
    </main>
  );
}

/** A message's text, which is a string or in blocks. */
function textOf(content: unknown): string {
  if (!Array.isArray(content)) return String(content);
  return content.map((block: { text?: string }) => block.text ?? "").join("");
}

const root = document.createElement("div");
document.body.append(root);
createRoot(root).render(query.get("hook") === "protocol" ? <ProtocolChat /> : <ModesChat />);
