import { describe, expect, it } from "vitest";
import type { PreferencesOut, TargetOut } from "@/shared/api/schema";
import { bodyOf, EVENTS, faultsOfTarget, withoutTarget, withTarget } from "./preferences";
import openapi from "../../shared/api/openapi.json";

const target = (name: string): TargetOut => ({
  name,
  url: `https://example.com/${name}`,
  enabled: true,
  events: ["run_failed"],
  thresholds: { budget_share: 0.8, rate_limit_errors: 20, rate_limit_within: 600 },
  has_secret: true,
});
const known: PreferencesOut = {
  default_model: "openai:gpt-4.1",
  budget: { max_cost_usd: 1 },
  dashboard_range: "7d",
  notification_targets: [target("a"), target("b"), target("c")],
};
const names = (body: ReturnType<typeof bodyOf>) => body.notification_targets.map((one) => one.name);

describe("preferences to send back", () => {
  it("include everything but secrets", () => {
    expect(bodyOf(known)).toMatchObject({
      default_model: "openai:gpt-4.1",
      budget: { max_cost_usd: 1 },
      dashboard_range: "7d",
    });
    expect(JSON.stringify(bodyOf(known))).not.toContain("secret");
  });

  it("add, change or remove one target and keep the others", () => {
    expect(names(withTarget(known, { ...target("d"), secret: "s" }, null))).toEqual(["a", "b", "c", "d"]);
    expect(names(withTarget(known, target("d"), 1))).toEqual(["a", "d", "c"]);
    expect(names(withoutTarget(known, 0))).toEqual(["b", "c"]);
  });
});

it("shows errors at their target's fields", () => {
  const faults = [
    { pointer: "/notification_targets/1/url", detail: "is not on the public internet" },
    { pointer: "/notification_targets/1/events/0", detail: "is none" },
    { pointer: "/notification_targets/1/thresholds/budget_share", detail: "is above 1" },
    { pointer: "/notification_targets/10/url", detail: "is another's" },
    { pointer: "/default_model", detail: "?" },
  ];
  expect(faultsOfTarget(faults, 1)).toEqual({
    url: "is not on the public internet",
    events: "is none",
    "thresholds/budget_share": "is above 1",
  });
});

it("offers every event", () => {
  const events = openapi.components.schemas.TargetOut.properties.events.items.enum;
  expect(EVENTS.map((event) => event.value).sort()).toEqual([...events].sort());
});
