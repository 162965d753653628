/** What has been entered for a question and not been sent. It is kept in the tab, so that a reload loses nothing. */
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { parse, stringify } from "../api/exact-json";
import { sessionQuery } from "../api/session";

const PREFIX = "draft:";

export interface Draft {
  /** What had been entered when the question was opened; undefined if nothing had. */
  kept: unknown;
  keep: (entered: unknown) => void;
  forget: () => void;
}

/** The signed-in user's draft of an answer. */
export function useDraft(questionId: string): Draft {
  const user = useQueryClient().getQueryData(sessionQuery.queryKey)?.user_id ?? "";
  const key = `${PREFIX}${user}:${questionId}`;
  const [kept] = useState(() => read(key));
  return {
    kept,
    keep: (entered) => {
      try {
        if (entered === undefined) sessionStorage.removeItem(key);
        else sessionStorage.setItem(key, stringify(entered));
      } catch {
        // The tab's storage is full or switched off: what is entered lasts as long as the page.
      }
    },
    forget: () => sessionStorage.removeItem(key),
  };
}

/** Removes all drafts from the tab: whoever uses it next shall not find them. */
export function forgetDrafts(): void {
  for (const key of Object.keys(sessionStorage)) if (key.startsWith(PREFIX)) sessionStorage.removeItem(key);
}

function read(key: string): unknown {
  const text = sessionStorage.getItem(key);
  try {
    return text === null ? undefined : parse(text);
  } catch {
    return undefined;
  }
}
