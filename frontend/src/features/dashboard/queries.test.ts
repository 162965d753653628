import { QueryClient } from "@tanstack/react-query";
import { expect, it, vi } from "vitest";
import { asProblem } from "@/shared/api/problem";
import { behindQuery, healthQuery, refreshEvery } from "./queries";

function answering(status: number, body: object) {
  return vi.spyOn(globalThis, "fetch").mockImplementation(() => Promise.resolve(Response.json(body, { status })));
}

const client = () => new QueryClient({ defaultOptions: { queries: { retry: false } } });

it("treats an unhealthy system as a valid response", async () => {
  const health = { status: "unhealthy", components: {}, checked_at: "2026-05-03T12:00:00Z" };
  answering(503, health);
  expect(await client().query(healthQuery)).toEqual(health);
});

it("treats a proxy's 503 as an error", async () => {
  answering(503, { title: "Not available now" });
  const error: unknown = await client()
    .query(healthQuery)
    .catch((thrown: unknown) => thrown);
  expect(asProblem(error).status).toBe(503);
});

it("requests the runs behind a figure with the same range and filters", async () => {
  vi.useFakeTimers({ now: Date.parse("2026-05-03T12:00:00Z") });
  const fetched = answering(200, { executions: [], next_cursor: null });
  await client().query(behindQuery({ range: "6h", dag: "reports" }, { error: "rate_limit" }));
  const asked = new URL((fetched.mock.calls[0]?.[0] as Request).url).searchParams;
  expect(asked.get("since")).toBe("2026-05-03T06:00:00.000Z");
  expect(asked.get("dag_id")).toBe("reports");
  expect(asked.get("error_category")).toBe("rate_limit");
  expect(asked.get("user_id")).toBeNull();
  vi.useRealTimers();
});

it("refreshes shorter ranges more often", () => {
  expect(refreshEvery("15m")).toBe(10_000);
  expect(refreshEvery("24h")).toBe(30_000);
  expect(refreshEvery("90d")).toBe(120_000);
});
