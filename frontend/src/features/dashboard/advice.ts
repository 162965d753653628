/** What to do about a component that isn't healthy. */
export interface Advice {
  /** What works and what doesn't in the meantime. */
  meanwhile: string;
  steps: string[];
}

interface Part {
  label: string;
  /** What the component is for. */
  purpose: string;
  degraded: Advice;
  unhealthy: Advice;
}

const log = (name: string) => `Its log is .stack/logs/${name}.log; in Compose, the log of the service`;

function airflowPart(label: string, purpose: string, process: string, service: string, meanwhile: string): Part {
  const advice: Advice = {
    meanwhile,
    steps: [
      `make status shows whether the process ${process} is running. It restarts automatically if it dies.`,
      `${log(process)} ${service}.`,
      "A component that runs without a heartbeat is waiting for the database or the CPU: check the machine's load.",
    ],
  };
  return { label, purpose, degraded: advice, unhealthy: advice };
}

const DATABASE: Advice = {
  meanwhile:
    "Open streams wait; nothing can be read or started here. Running agents continue, and record what they did once it is back.",
  steps: [
    "make status shows whether the embedded PostgreSQL is running; its log is in .stack/postgres/log/. make up restarts it.",
    "With your own server: check POSTGRES_HOST, POSTGRES_PORT and the network, and that it accepts more connections.",
    "If it responds slowly: check the disk, and look in pg_stat_activity for what queries are waiting for.",
  ],
};

const AIRFLOW_API: Advice = {
  meanwhile: "Running workflows continue. Nothing can be started, cancelled or retried, and nobody can sign in.",
  steps: [
    "make status shows whether the process api-server is running.",
    `${log("api-server")} airflow-webserver.`,
    "If it responds in the browser but not here: check VISUAL_AI_AIRFLOW_URL and the network between the two.",
    "If it rejects the backend: check the service account, VISUAL_AI_AIRFLOW_USERNAME and VISUAL_AI_AIRFLOW_PASSWORD.",
  ],
};

const METADATABASE: Advice = {
  meanwhile: "Airflow can neither start nor track runs.",
  steps: [
    "Check the database first: in the standard set-up, Airflow's and LangGraph Flow's are on one server.",
    'Check AIRFLOW__DATABASE__SQL_ALCHEMY_CONN, and that Airflow\'s migrations have run: make airflow ARGS="db check".',
  ],
};

const FEED: Advice = {
  meanwhile: "Nothing is lost: events are read once a second, so live pages lag by a second.",
  steps: [
    "It reconnects automatically. If the message names Redis: check REDIS_URL and that Redis is running.",
    "If it names the database connection: check the database. A connection pooler in between must support LISTEN.",
    "The backend's log shows since when: .stack/logs/backend.log.",
  ],
};

const RECONCILER: Advice = {
  meanwhile:
    "Tasks still report their own states. Runs whose worker died, and changes made in Airflow's UI, may appear late.",
  steps: [
    "It retries automatically. Usually Airflow's API or the database is the cause: check those first.",
    "Check that the service account may read all runs; the backend's log names what was rejected: .stack/logs/backend.log.",
  ],
};

const NOTIFICATIONS: Advice = {
  meanwhile: "Nothing is lost: notifications wait in the database and are sent once this works again.",
  steps: [
    "It retries automatically; usually the database is the cause.",
    "The backend's log has details: .stack/logs/backend.log. Undelivered notifications are listed in the settings.",
  ],
};

const LANGFUSE: Advice = {
  meanwhile: "Agents aren't affected. Traces from this time may be missing.",
  steps: [
    "Check LANGFUSE_HOST, and that this machine can reach it.",
    "If it responds with 401 or 403: check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY.",
    "To run without Langfuse: remove the keys.",
  ],
};

const PROVIDER: Record<"outage" | "key" | "away", Advice> = {
  outage: {
    meanwhile:
      "This model isn't called. After a pause, which doubles each time up to two minutes, one agent tries it again. Agents with a fallback model continue with it; the others wait without a worker, or fail, as their error policy says.",
    steps: [
      "Check the provider's status page. Once a call succeeds, all agents continue automatically.",
      "To continue without it: name other models in VISUAL_AI_MODEL_FALLBACKS or in the agents' error_policy.",
    ],
  },
  key: {
    meanwhile: "Every call to this provider fails immediately. Agents that use other providers continue.",
    steps: [
      "Set a valid OPENAI_API_KEY, or correct OPENAI_BASE_URL, in .env; then run make down && make up.",
      "Connections (llm_conn_id) with their own key aren't affected.",
    ],
  },
  away: {
    meanwhile: "Agents retry as their error policy says, and switch to their fallback models if they have any.",
    steps: [
      "Check OPENAI_BASE_URL, that this machine can reach it, and the provider's status page.",
      "If it responds with 429: the account's rate limit is reached. Agents share it, and hold back automatically.",
    ],
  },
};

/** Every component that the system-health endpoint reports. */
export const PARTS: Record<string, Part> = {
  database: {
    label: "Database",
    purpose: "Stores runs, events and checkpoints",
    degraded: DATABASE,
    unhealthy: DATABASE,
  },
  airflow_api: {
    label: "Airflow API",
    purpose: "Starts and stops runs, signs users in",
    degraded: AIRFLOW_API,
    unhealthy: AIRFLOW_API,
  },
  airflow_metadatabase: {
    label: "Airflow's database",
    purpose: "Stores Airflow's own state",
    degraded: METADATABASE,
    unhealthy: METADATABASE,
  },
  airflow_scheduler: airflowPart(
    "Scheduler",
    "Starts tasks",
    "scheduler",
    "airflow-scheduler",
    "New runs wait in the queue. Running tasks continue.",
  ),
  airflow_dag_processor: airflowPart(
    "DAG processor",
    "Reads the DAG files",
    "dag-processor",
    "airflow-dag-processor",
    "Known workflows keep running. New and changed DAG files aren't picked up.",
  ),
  airflow_triggerer: airflowPart(
    "Triggerer",
    "Runs deferred agents",
    "triggerer",
    "airflow-triggerer",
    "Agents with deferrable=True pause, and resume from their checkpoints. Agents in workers aren't affected.",
  ),
  event_feed: { label: "Event feed", purpose: "Wakes live pages and streams", degraded: FEED, unhealthy: FEED },
  reconciler: {
    label: "Reconciler",
    purpose: "Compares recorded states with Airflow",
    degraded: RECONCILER,
    unhealthy: RECONCILER,
  },
  notifications: {
    label: "Notifications",
    purpose: "Delivers to users' webhooks",
    degraded: NOTIFICATIONS,
    unhealthy: NOTIFICATIONS,
  },
  langfuse: { label: "Langfuse", purpose: "Traces of agents", degraded: LANGFUSE, unhealthy: LANGFUSE },
  model_provider: {
    label: "Model provider",
    purpose: "Answers agents' model calls",
    degraded: PROVIDER.away,
    unhealthy: PROVIDER.key,
  },
};

interface Component {
  status: string;
  reason?: string | null;
  since?: string | null;
}

/** A component's label and purpose, also for one that only a newer backend knows. */
export function partOf(name: string): { label: string; purpose: string } {
  return PARTS[name] ?? { label: name.replaceAll("_", " "), purpose: "" };
}

/** What to do about a component; null if it is healthy. */
export function adviceFor(name: string, component: Component): Advice | null {
  if (component.status === "healthy") return null;
  // Agents' own calls have failed, which says more than the result of a check.
  if (name === "model_provider" && component.since && component.status !== "unhealthy") return PROVIDER.outage;
  const part = PARTS[name];
  if (!part) return { meanwhile: "", steps: ["The backend's log has details: .stack/logs/backend.log."] };
  return component.status === "unhealthy" ? part.unhealthy : part.degraded;
}

const SEVERITY = ["unhealthy", "degraded", "healthy"];

/** Worst first, then required ones, then by label. */
export function bySeverity<T extends { status: string; required: boolean }>(
  components: Record<string, T>,
): [string, T][] {
  const rank = ([name, part]: [string, T]): string =>
    `${SEVERITY.indexOf(part.status)}${part.required ? 0 : 1}${partOf(name).label}`;
  return Object.entries(components).sort((one, other) => rank(one).localeCompare(rank(other)));
}
