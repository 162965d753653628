import { useRef } from "react";
import { stringify } from "./exact-json";

/** The `Idempotency-Key` of a request: the same one as long as the same body is sent again. */
export interface RequestKey {
  of: (body: unknown) => string;
  /** The next request is another one, whatever its body. */
  forget: () => void;
}

export function useRequestKey(): RequestKey {
  const sent = useRef<{ body: string; key: string } | null>(null);
  return {
    of: (body) => {
      const text = stringify(body);
      if (sent.current?.body !== text) sent.current = { body: text, key: newKey() };
      return sent.current.key;
    },
    forget: () => {
      sent.current = null;
    },
  };
}

/** A random key; `crypto.randomUUID` exists only over TLS and on localhost. */
function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
