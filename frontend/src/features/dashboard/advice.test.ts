import { describe, expect, it } from "vitest";
import { adviceFor, bySeverity, partOf } from "./advice";
import { CATEGORIES, categoryLook } from "./categories";
import openapi from "../../shared/api/openapi.json";

/** What GET /monitoring/system-health names. */
const COMPONENTS = [
  "database",
  "airflow_api",
  "airflow_metadatabase",
  "airflow_scheduler",
  "airflow_dag_processor",
  "airflow_triggerer",
  "event_feed",
  "reconciler",
  "notifications",
  "langfuse",
  "model_provider",
];
const STATES = openapi.components.schemas.ComponentHealth.properties.status.enum;

describe("advice", () => {
  it.each(COMPONENTS)("%s: said for each state in which something is to be done", (name) => {
    expect(partOf(name).purpose).not.toBe("");
    for (const status of STATES) {
      const advice = adviceFor(name, { status });
      if (status === "healthy") expect(advice).toBeNull();
      else {
        expect(advice?.meanwhile).not.toBe("");
        expect(advice?.steps.length).toBeGreaterThan(0);
      }
    }
  });

  it("distinguishes an outage, a rejected key and a failed check", () => {
    const steps = (component: { status: string; since?: string }) =>
      adviceFor("model_provider", component)?.steps.join(" ");
    expect(steps({ status: "degraded", since: "2026-05-03T12:00:00Z" })).toContain("VISUAL_AI_MODEL_FALLBACKS");
    expect(steps({ status: "unhealthy" })).toContain("OPENAI_API_KEY");
    expect(steps({ status: "unhealthy", since: "2026-05-03T12:00:00Z" })).toContain("OPENAI_API_KEY");
    expect(steps({ status: "degraded" })).toContain("OPENAI_BASE_URL");
  });

  it("has advice for an unknown component", () => {
    expect(partOf("vector_store").label).toBe("vector store");
    expect(adviceFor("vector_store", { status: "degraded" })?.steps).toHaveLength(1);
  });

  it("lists the worst first", () => {
    const part = (status: string, required = false) => ({ status, required });
    const order = bySeverity({
      langfuse: part("degraded"),
      database: part("healthy", true),
      airflow_triggerer: part("unhealthy"),
      airflow_scheduler: part("unhealthy", true),
    });
    expect(order.map(([name]) => name)).toEqual(["airflow_scheduler", "airflow_triggerer", "langfuse", "database"]);
  });
});

describe("error categories", () => {
  it("are all explained", () => {
    const parameters = openapi.paths["/workflow-status"].get.parameters;
    const known = JSON.stringify(parameters.find((parameter) => parameter.name === "error_category"));
    for (const category of CATEGORIES) {
      expect(known).toContain(`"${category}"`);
      expect(categoryLook(category).meaning).not.toBe("");
    }
    expect(/"enum":\[([^\]]*)/.exec(known)?.[1]?.split(",")).toHaveLength(CATEGORIES.length);
  });
});
