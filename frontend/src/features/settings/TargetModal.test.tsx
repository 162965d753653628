import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";
import type { PreferencesBody, PreferencesOut } from "@/shared/api/schema";
import { TargetModal } from "./TargetModal";

const kept: PreferencesOut = {
  default_model: "openai:gpt-4.1",
  budget: null,
  dashboard_range: "7d",
  notification_targets: [
    {
      name: "on-call",
      url: "https://example.com/a",
      enabled: true,
      events: ["run_failed"],
      thresholds: { budget_share: 0.8, rate_limit_errors: 20, rate_limit_within: 600 },
      has_secret: true,
    },
  ],
};

/** An API that keeps what is kept, and answers changes with this; gives what was sent. */
function api(status: number, answer: object): PreferencesBody[] {
  const sent: PreferencesBody[] = [];
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input) => {
    const request = input as Request;
    if (request.method === "GET") return Response.json(kept);
    sent.push((await request.json()) as PreferencesBody);
    return Response.json(answer, { status });
  });
  return sent;
}

function open(index: number | null, onClose = () => undefined) {
  render(
    <MantineProvider env="test">
      <QueryClientProvider client={new QueryClient()}>
        <TargetModal
          target={index === null ? null : (kept.notification_targets[index] ?? null)}
          index={index}
          position={index ?? kept.notification_targets.length}
          onClose={onClose}
        />
      </QueryClientProvider>
    </MantineProvider>,
  );
}

const write = (label: RegExp, value: string) => fireEvent.change(screen.getByLabelText(label), { target: { value } });

afterEach(cleanup);

it("sends all preferences with the new target, and shows errors at their fields", async () => {
  const sent = api(422, {
    title: "Invalid",
    errors: [{ pointer: "/notification_targets/1/url", detail: "is not on the public internet" }],
  });
  open(null);
  write(/^Name/, "chat");
  write(/^URL/, "https://10.0.0.1/hook");
  write(/^Secret/, "sixteen characters");
  fireEvent.click(screen.getByRole("button", { name: "Save" }));

  await screen.findByText("is not on the public internet");
  expect(screen.getByLabelText(/^URL/).getAttribute("aria-invalid")).toBe("true");
  expect(screen.queryByRole("alert")).toBeNull();
  expect(sent[0]?.default_model).toBe("openai:gpt-4.1");
  expect(sent[0]?.notification_targets.map((one) => [one.name, one.secret])).toEqual([
    ["on-call", undefined],
    ["chat", "sixteen characters"],
  ]);
});

it("keeps a secret that isn't changed, but not under a new name", async () => {
  const sent = api(200, kept);
  const onClose = vi.fn(() => undefined);
  open(0, onClose);
  const secret = screen.getByLabelText(/^Secret/);
  expect(secret.hasAttribute("required")).toBe(false);
  write(/^Name/, "nights");
  expect(screen.getByLabelText(/^Secret/).hasAttribute("required")).toBe(true);
  write(/^Name/, "on-call");
  fireEvent.click(screen.getByRole("button", { name: "Save" }));

  await waitFor(() => expect(onClose).toHaveBeenCalled());
  expect(sent[0]?.notification_targets).toHaveLength(1);
  expect(sent[0]?.notification_targets[0]).not.toHaveProperty("secret");
});
