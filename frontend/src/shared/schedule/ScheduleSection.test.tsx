import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { sessionQuery } from "../api/session";
import type { Me, ScheduleOut } from "../api/schema";
import { draftOf, requestOf, whenDue } from "./schedule";
import { ScheduleSection } from "./ScheduleSection";

beforeEach(() => {
  Object.defineProperty(document, "fonts", { value: new EventTarget(), configurable: true }); // happy-dom has none
});
afterEach(() => {
  cleanup();
  vi.restoreAllMocks();
});

const KNOWN = {
  id: "s",
  dag_id: "a",
  template: "totals",
  timetable: { kind: "crons", crons: ["0 6 * * *"] },
  timezone: "Europe/Berlin",
  start_date: null,
  end_date: null,
  catchup: false,
  enabled: true,
  input_data: { query: "And the tax?" },
  model: null,
  budget: null,
  user_id: "ulla",
  next_run_date: "2040-01-01T05:00:00Z",
  stopped_reason: null,
  last_error: null,
  latest: [],
} as unknown as ScheduleOut;

type Sent = { method: string; path: string; body: Record<string, unknown> | null };

/** Shows the section to a user; `stored` is what the backend has, and `reply` responds to changes. Returns what was sent. */
function shown(stored: ScheduleOut | null, reply?: () => Response, me: Partial<Me> = {}): Sent[] {
  const sent: Sent[] = [];
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input) => {
    const request = input as Request;
    if (request.method === "GET") {
      return stored ? Response.json(stored) : Response.json({ title: "Not found" }, { status: 404 });
    }
    const text = await request.text();
    sent.push({
      method: request.method,
      path: new URL(request.url).pathname,
      body: text ? (JSON.parse(text) as Record<string, unknown>) : null,
    });
    return reply?.() ?? new Response(null, { status: 204 });
  });
  const client = new QueryClient({ defaultOptions: { queries: { retry: false }, mutations: { retry: false } } });
  client.setQueryData(sessionQuery.queryKey, { user_id: "ulla", role: "User", ...me } as Me);
  render(
    <MantineProvider env="test">
      <QueryClientProvider client={client}>
        <ScheduleSection target={{ kind: "template", name: "totals" }} />
      </QueryClientProvider>
    </MantineProvider>,
  );
  return sent;
}

const press = async (name: string) => fireEvent.click(await screen.findByRole("button", { name }));

it("sets a schedule, and shows what is wrong at its field", async () => {
  const fault = { pointer: "/timetable/crons/0", detail: "never comes true" };
  const replies = [
    Response.json({ title: "Invalid", errors: [fault] }, { status: 422 }),
    Response.json({ ...KNOWN, timetable: { kind: "crons", crons: ["@daily"] } }),
  ];
  const sent = shown(null, () => replies.shift() ?? Response.error());
  expect(await screen.findByText(/No schedule is set/)).toBeDefined();
  await press("Set a schedule");
  const crons = await screen.findByRole("textbox", { name: "Cron expressions" });
  fireEvent.change(crons, { target: { value: "0 0 30 2 *" } });
  await press("Save");
  expect(await screen.findByText("never comes true")).toBeDefined();
  fireEvent.change(crons, { target: { value: "@daily\n" } });
  await press("Save");
  expect(await screen.findByText(/Due @daily/)).toBeDefined();
  expect(sent.map(({ method, path }) => `${method} ${path}`)).toEqual(Array(2).fill("PUT /templates/totals/schedule"));
  expect(sent[1]?.body).toMatchObject({ timetable: { kind: "crons", crons: ["@daily"] }, enabled: true });
});

it("pauses and deletes", async () => {
  const sent = shown(KNOWN, () =>
    sent.length === 1 ? Response.json({ ...KNOWN, enabled: false }) : new Response(null, { status: 204 }),
  );
  expect(await screen.findByText(/Due 0 6 \* \* \* \(Europe\/Berlin\)/)).toBeDefined();
  await press("Pause");
  expect(await screen.findByText("Paused")).toBeDefined();
  expect(sent[0]?.body).toMatchObject({ enabled: false, timetable: KNOWN.timetable, input_data: KNOWN.input_data });
  await press("Delete");
  await waitFor(() => expect(screen.getByText(/No schedule is set/)).toBeDefined());
  expect(sent[1]?.method).toBe("DELETE");
});

it("says why a schedule was stopped, and lets others only look", async () => {
  const reason = "'ulla', whose runs these are, may no longer trigger the workflow.";
  shown({ ...KNOWN, enabled: false, stopped_reason: reason, input_data: null }, undefined, { user_id: "uwe" });
  expect(await screen.findByText(new RegExp(reason))).toBeDefined();
  expect(screen.getByText("Stopped")).toBeDefined();
  expect(screen.queryByRole("button", { name: "Resume" })).toBeNull();
});

it("keeps what the form doesn't show, and says when each kind is due", () => {
  const schedule = { ...KNOWN, budget: { max_tokens: 5 } } as unknown as ScheduleOut;
  const request = requestOf(draftOf(schedule), { query: "x" }, schedule);
  expect(request).toMatchObject({ timetable: KNOWN.timetable, timezone: "Europe/Berlin", budget: { max_tokens: 5 } });
  const due = (timetable: object) => whenDue({ ...KNOWN, timetable } as unknown as ScheduleOut);
  expect(due({ kind: "delta", seconds: 7200 })).toBe("every 2 hours");
  expect(due({ kind: "delta", seconds: 60 })).toBe("every minute");
  expect(due({ kind: "events", dates: ["a", "b"] })).toBe("2 dates");
  expect(due({ kind: "assets", assets: ["a", "b"], condition: "any" })).toBe("after updates of a or b");
});
