import type { TokenOut } from "@/shared/api/schema";

export type Standing = "valid" | "expired" | "revoked";

/** Whether a token is accepted at a moment, in milliseconds since the epoch. */
export function standing(token: Pick<TokenOut, "expires_at" | "revoked_at">, now: number): Standing {
  if (token.revoked_at !== null) return "revoked";
  return Date.parse(token.expires_at) <= now ? "expired" : "valid";
}

/** The workflows in a comma-separated list; null for none, which means all. */
export function dagIds(text: string): string[] | null {
  const found = [
    ...new Set(
      text
        .split(/[\s,]+/)
        .map((one) => one.trim())
        .filter(Boolean),
    ),
  ];
  return found.length > 0 ? found : null;
}
