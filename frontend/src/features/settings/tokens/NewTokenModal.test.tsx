import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/react";
import { Suspense } from "react";
import { afterEach, expect, it, vi } from "vitest";
import { NewTokenModal } from "./NewTokenModal";

const me = { user_id: "ulla", role: "User", expires_at: null, may_trigger: true, sees_all: false, service_token: null };

afterEach(() => {
  cleanup();
  vi.restoreAllMocks();
});

it("creates a token and shows it once", async () => {
  const sent: unknown[] = [];
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input) => {
    const request = input as Request;
    if (request.method === "GET") return Response.json(me);
    sent.push(await request.json());
    return Response.json({ token: "lgf_0123456789ab_secret" }, { status: 201 });
  });
  render(
    <MantineProvider env="test">
      <QueryClientProvider client={new QueryClient()}>
        <Suspense fallback={null}>
          <NewTokenModal onClose={() => undefined} />
        </Suspense>
      </QueryClientProvider>
    </MantineProvider>,
  );
  fireEvent.change(await screen.findByLabelText(/^Name/, {}, { timeout: 10_000 }), { target: { value: " nightly " } });
  fireEvent.click(screen.getByRole("checkbox", { name: "Start runs" }));
  fireEvent.change(screen.getByLabelText("Only these workflows"), { target: { value: "a, b" } });
  fireEvent.click(screen.getByRole("button", { name: "Create" }));
  await waitFor(() => expect(screen.getByText("lgf_0123456789ab_secret")).toBeDefined(), { timeout: 10_000 });
  expect(sent).toEqual([{ name: "nightly", scopes: ["read", "trigger"], dag_ids: ["a", "b"], expires_in_days: 90 }]);
}, 30_000);
