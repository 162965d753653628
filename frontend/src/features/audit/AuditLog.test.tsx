import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";
import { AuditLog } from "./AuditLog";

const entry = {
  id: 2,
  occurred_at: "2026-03-01T12:00:00Z",
  action: "request.refused",
  outcome: "refused",
  user_id: "<img src=x>",
  role: "Viewer",
  credential: "session:abcdefgh",
  address: "203.0.113.9",
  object: "GET /audit",
  details: { status: 403 },
  request_id: "an-id",
};

afterEach(() => {
  cleanup();
  vi.restoreAllMocks();
});

it("lists entries, page by page, and filters them", async () => {
  const asked: URLSearchParams[] = [];
  vi.spyOn(globalThis, "fetch").mockImplementation((input) => {
    const query = new URL((input as Request).url).searchParams;
    asked.push(query);
    const older = query.get("cursor") === "older";
    const shown = older ? { ...entry, id: 1, user_id: null, action: "sign_in", outcome: "failed" } : entry;
    return Promise.resolve(Response.json({ entries: [shown], next_cursor: older ? null : "older" }));
  });
  const onChange = vi.fn();
  render(
    <MantineProvider env="test">
      <QueryClientProvider client={new QueryClient()}>
        <AuditLog filters={{ outcome: "refused" }} onChange={onChange} />
      </QueryClientProvider>
    </MantineProvider>,
  );
  expect(await screen.findByText("<img src=x>", {}, { timeout: 10_000 })).toBeDefined();
  expect(screen.getByText("GET /audit")).toBeDefined();
  expect(screen.getByText("203.0.113.9")).toBeDefined();
  fireEvent.click(screen.getByRole("button", { name: "Show older" }));
  await waitFor(() => expect(screen.getByText("nobody known")).toBeDefined(), { timeout: 10_000 });
  expect(asked.map((query) => [query.get("outcome"), query.get("cursor")])).toEqual([
    ["refused", null],
    ["refused", "older"],
  ]);
  fireEvent.change(screen.getByRole("textbox", { name: "User" }), { target: { value: " ulla " } });
  await waitFor(() => expect(onChange).toHaveBeenCalledWith({ outcome: "refused", user: "ulla" }));
}, 30_000);
