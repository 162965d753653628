import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider, useQuery } from "@tanstack/react-query";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { parse, stringify } from "../api/exact-json";
import type { QuestionOut } from "../api/schema";
import { AnswerPanel } from "./AnswerPanel";
import { questionQuery } from "./queries";

beforeEach(() => {
  Object.defineProperty(document, "fonts", { value: new EventTarget(), configurable: true }); // happy-dom has none
});
afterEach(() => {
  cleanup();
  sessionStorage.clear();
  vi.restoreAllMocks();
});

const OPEN = {
  question_id: "q",
  kind: "question",
  subject: "Review this draft",
  content: { task: "Review this draft", draft: "A draft." },
  schema: null,
  state: "open",
  refusal: null,
  assignees: [],
  answered_by: null,
  decision: null,
  answer: null,
  closed_reason: null,
} as unknown as QuestionOut;
const ANSWERED = { ...OPEN, state: "answered", answered_by: "otto", answered_via: "api", answer: "Otto's." };

type Sent = { key: string | null; body: unknown; text: string };

/** Shows a question's panel; `reply` responds to answers, and `then` is what has become of it. Returns what was sent. */
function shown(given: Partial<QuestionOut>, reply: () => Response, then = ANSWERED): Sent[] {
  const sent: Sent[] = [];
  const question = { ...OPEN, ...given };
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input) => {
    const request = input as Request;
    if (request.method === "GET") return Response.json(then);
    const text = await request.text();
    sent.push({ key: request.headers.get("idempotency-key"), body: parse(text), text });
    return reply();
  });
  const client = new QueryClient({ defaultOptions: { queries: { staleTime: Infinity }, mutations: { retry: false } } });
  client.setQueryData(questionQuery("q").queryKey, question);
  render(
    <MantineProvider env="test">
      <QueryClientProvider client={client}>
        <Panel />
      </QueryClientProvider>
    </MantineProvider>,
  );
  return sent;
}

function Panel() {
  const { data } = useQuery(questionQuery("q"));
  return data ? <AnswerPanel question={data} /> : null;
}

const field = (name: string) => screen.getByRole<HTMLTextAreaElement>("textbox", { name });
const type = (name: string, value: string) => fireEvent.change(field(name), { target: { value } });
const press = (name: string) => fireEvent.click(screen.getByRole("button", { name }));
const choose = (name: string) => fireEvent.click(screen.getByRole("radio", { name }));

it("sends a text, again under the same key, and shows what was answered", async () => {
  const mine = { ...ANSWERED, answer: "Mine." };
  const replies = [Response.json({ title: "Unavailable" }, { status: 503 }), Response.json(mine)];
  const sent = shown({}, () => replies.shift() ?? Response.error(), mine);
  type("Answer", "Mine.");
  press("Answer");
  fireEvent.click(await screen.findByRole("button", { name: "Try again" }));
  await waitFor(() => expect(screen.queryByRole("textbox")).toBeNull());
  expect(screen.getByText("Mine.")).toBeDefined();
  expect(sent.map(({ body }) => body)).toEqual([{ answer: "Mine." }, { answer: "Mine." }]);
  expect(sent[0]?.key).toMatch(/^[0-9a-f]{32}$/);
  expect(sent[1]?.key).toBe(sent[0]?.key);
});

it("keeps what was typed when someone else was first, and says who and what", async () => {
  const detail = "otto has answered this question at 2026-03-01T12:00:00+00:00.";
  shown({}, () => Response.json({ title: "Conflict", detail }, { status: 409 }));
  type("Answer", "Mine, at length.");
  fireEvent.keyDown(field("Answer"), { key: "Enter", ctrlKey: true });
  expect(await screen.findByText("otto answered")).toBeDefined();
  expect(screen.getByText("Otto's.")).toBeDefined();
  expect(screen.getByRole("alert").textContent).toContain(detail);
  expect(field("Answer").value).toBe("Mine, at length.");
  expect(field("Answer").disabled).toBe(true);
});

it("explains before anything is typed that the reader may not answer", () => {
  shown({ refusal: "This question is for otto." }, () => Response.error());
  expect(screen.getByText("This question is for otto.")).toBeDefined();
  expect(screen.queryByRole("textbox")).toBeNull();
});

it("offers to send what looks like JSON as JSON, with its number as it was typed", async () => {
  const sent = shown({}, () => Response.json(ANSWERED));
  type("Answer", "42.0");
  press("Send 42.0 as JSON instead");
  press("Answer");
  await waitFor(() => expect(sent[0]?.text).toBe('{"answer":42.0}'));
});

it("takes a decision about each of several tool calls, and edited arguments", async () => {
  const content = parse(
    '{"action_requests":[{"name":"send","args":{"to":"ann","body":"Hi","copies":1.0,"urgent":false}},{"name":"pay","args":{}}],' +
      '"review_configs":[{"action_name":"send","allowed_decisions":["approve","edit"]},' +
      '{"action_name":"pay","allowed_decisions":["approve","reject"]}]}',
  );
  const sent = shown({ kind: "approval", content }, () => Response.json(ANSWERED));
  const send = screen.getByRole<HTMLButtonElement>("button", { name: "Send 2 decisions" });
  expect(send.disabled).toBe(true);
  choose("Edit");
  type("body", "");
  choose("Reject");
  type("Why (optional)", "Too much.");
  fireEvent.click(send);
  await waitFor(() => expect(sent).toHaveLength(1));
  const args = '{"to":"ann","body":"","copies":1.0,"urgent":false}';
  expect(sent[0]?.text).toBe(
    `{"answer":{"decisions":[{"type":"edit","edited_action":{"name":"send","args":${args}}},{"type":"reject","message":"Too much."}]}}`,
  );
});

it("offers the usual decision about one tool call, and goes on or stops at a breakpoint", async () => {
  const content = { action_requests: [{ name: "send", args: {} }], review_configs: [] };
  const sent = shown({ kind: "approval", content }, () => Response.json(ANSWERED));
  press("Approve");
  await waitFor(() => expect(stringify(sent[0]?.body)).toBe('{"decision":"approve"}'));
  cleanup();
  const stopped = shown({ kind: "breakpoint", content: null }, () => Response.json(ANSWERED));
  press("Stop");
  await waitFor(() => expect(stringify(stopped[0]?.body)).toBe('{"decision":"reject"}'));
});

it("has a form for an answer with a schema, with the server's errors at their fields", async () => {
  const schema = { type: "object", properties: { seats: { type: "integer", title: "Seats" } }, required: ["seats"] };
  const errors = [{ pointer: "/answer/seats", detail: "is more than there are" }];
  const sent = shown({ schema }, () => Response.json({ title: "Invalid", errors }, { status: 422 }));
  await screen.findByRole("textbox", { name: "Seats" }, { timeout: 20_000 });
  type("Seats", "400");
  press("Answer");
  expect(await screen.findAllByText("Is more than there are")).not.toEqual([]);
  expect(field("Seats").value).toBe("400");
  expect(sent[0]?.body).toEqual({ answer: { seats: 400 } });
}, 40_000);

it("takes a single value by its schema", async () => {
  const sent = shown({ schema: { type: "boolean" } }, () => Response.json(ANSWERED));
  fireEvent.click(await screen.findByRole("radio", { name: "No" }, { timeout: 20_000 }));
  press("Answer");
  await waitFor(() => expect(sent[0]?.body).toEqual({ answer: false }));
}, 40_000);

it("has a form for an answer that has one of several forms", async () => {
  const edit = { title: "Edit", type: "object", properties: { text: { type: "string", title: "Text" } } };
  const schema = { oneOf: [edit, { type: "object", properties: { type: { const: "approve" } }, required: ["type"] }] };
  const sent = shown({ schema }, () => Response.json(ANSWERED));
  await screen.findByRole("textbox", { name: "Text" }, { timeout: 20_000 });
  type("Text", "Better.");
  press("Answer");
  await waitFor(() => expect(sent[0]?.body).toEqual({ answer: { text: "Better." } }));
}, 40_000);

it("keeps what was entered over a reload, until it is sent", async () => {
  const reloaded = (given: Partial<QuestionOut>) => {
    cleanup();
    return shown(given, () => Response.json(ANSWERED));
  };
  reloaded({});
  type("Answer", "At length");
  reloaded({ question_id: "another" });
  expect(field("Answer").value).toBe("");
  const sent = reloaded({});
  expect(field("Answer").value).toBe("At length");
  press("Answer");
  await waitFor(() => expect(sent).toHaveLength(1));
  reloaded({});
  expect(field("Answer").value).toBe("");

  const approval = {
    kind: "approval" as const,
    content: { action_requests: [{ name: "send", args: { to: "ann" } }], review_configs: [] },
  };
  reloaded(approval);
  choose("Edit");
  type("to", "bob");
  reloaded(approval);
  expect(field("to").value).toBe("bob");

  const seats = { schema: { type: "object", properties: { seats: { type: "integer", title: "Seats" } } } };
  reloaded({ ...seats, question_id: "seats" });
  await screen.findByRole("textbox", { name: "Seats" }, { timeout: 20_000 });
  type("Seats", "4");
  reloaded({ ...seats, question_id: "seats" });
  expect((await screen.findByRole<HTMLInputElement>("textbox", { name: "Seats" })).value).toBe("4");
}, 60_000);
