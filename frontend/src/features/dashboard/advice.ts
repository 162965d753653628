/** What to do about a part that is not healthy. */
export interface Advice {
  /** What works and what doesn't meanwhile. */
  meanwhile: string;
  steps: string[];
}

interface Part {
  label: string;
  /** What it is for. */
  purpose: string;
  degraded: Advice;
  unhealthy: Advice;
}

const log = (name: string) => `Its log is .stack/logs/${name}.log; with Compose, that of the service`;

function airflowPart(label: string, purpose: string, process: string, service: string, meanwhile: string): Part {
  const advice: Advice = {
    meanwhile,
    steps: [
      `make status says whether the process ${process} runs; it is started again by itself when it dies.`,
      `${log(process)} ${service}.`,
      "A part that runs and gives no heartbeat waits for the database or for the processor: look at the machine's load.",
    ],
  };
  return { label, purpose, degraded: advice, unhealthy: advice };
}

const DATABASE: Advice = {
  meanwhile:
    "Streams that are open wait; nothing can be read or started here. Agents that run go on and record what they did when it is back.",
  steps: [
    "make status says whether the embedded PostgreSQL runs; its log is in .stack/postgres/log/. make up starts it again.",
    "With a server of your own: check POSTGRES_HOST, POSTGRES_PORT and the network, and that it takes more connections.",
    "Answers that come late: look at the disk, and at pg_stat_activity for what others wait for.",
  ],
};

const AIRFLOW_API: Advice = {
  meanwhile: "Runs that have begun go on. Nothing can be started, cancelled or retried, and nobody can sign in.",
  steps: [
    "make status says whether the process api-server runs.",
    `${log("api-server")} airflow-webserver.`,
    "If it answers in the browser but not here: check VISUAL_AI_AIRFLOW_URL and the network between the two.",
    "If it refuses the backend: check the service account, VISUAL_AI_AIRFLOW_USERNAME and VISUAL_AI_AIRFLOW_PASSWORD.",
  ],
};

const METADATABASE: Advice = {
  meanwhile: "Airflow can neither start nor follow runs.",
  steps: [
    "Look at the database first: with the standard set-up Airflow's and ours are on one server.",
    'Check AIRFLOW__DATABASE__SQL_ALCHEMY_CONN, and that Airflow\'s migrations have run: make airflow ARGS="db check".',
  ],
};

const FEED: Advice = {
  meanwhile: "Nothing is lost: events are read once a second, so that live pages lag by that.",
  steps: [
    "It connects again by itself. If Redis is named: check REDIS_URL and that Redis runs.",
    "If the database connection is named: see to the database. A pooler in between has to let LISTEN through.",
    "The backend's log says since when: .stack/logs/backend.log.",
  ],
};

const RECONCILER: Advice = {
  meanwhile:
    "What tasks tell by themselves still arrives. Runs whose worker died, and what was done in Airflow's own pages, may be shown late.",
  steps: [
    "It tries again by itself. Usually Airflow's API or the database is the cause: see to those first.",
    "Check that the service account may read all runs; the backend's log names what was refused: .stack/logs/backend.log.",
  ],
};

const NOTIFICATIONS: Advice = {
  meanwhile: "Nothing is lost: what is to be sent waits in the database, and goes out when this works again.",
  steps: [
    "It tries again by itself; usually the database is the cause.",
    "The backend's log says more: .stack/logs/backend.log. What was given up is listed in the settings.",
  ],
};

const LANGFUSE: Advice = {
  meanwhile: "Agents don't notice. Traces of this time may be missing.",
  steps: [
    "Check LANGFUSE_HOST, and that this machine may call it.",
    "If it answers with 401 or 403: check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY.",
    "To do without: leave the keys out.",
  ],
};

const PROVIDER: Record<"outage" | "key" | "away", Advice> = {
  outage: {
    meanwhile:
      "Calls of this model are not made; after a pause, longer each time and two minutes at most, one agent tries again. Agents with another model to fall back to go on with it; the others wait outside their workers or fail as their error policy says.",
    steps: [
      "Look at the provider's own status page. When one call succeeds, all go on by themselves.",
      "To go on without it: name other models in VISUAL_AI_MODEL_FALLBACKS or the agents' error_policy.",
    ],
  },
  key: {
    meanwhile: "Each call of this provider fails at once. Agents with models of others go on.",
    steps: [
      "Set OPENAI_API_KEY to a key that is valid, or correct OPENAI_BASE_URL, in .env; then make down && make up.",
      "A connection (llm_conn_id) with a key of its own is not touched by this.",
    ],
  },
  away: {
    meanwhile: "Agents try again as their error policy says, and fall back to other models where they have some.",
    steps: [
      "Check OPENAI_BASE_URL and that this machine may call it; look at the provider's own status page.",
      "If it answers with 429: the account's limit is reached. Agents share what is left and hold back by themselves.",
    ],
  },
};

/** Every part that the system's health names. */
export const PARTS: Record<string, Part> = {
  database: {
    label: "Database",
    purpose: "Holds runs, events and checkpoints",
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
    purpose: "Where Airflow keeps its runs",
    degraded: METADATABASE,
    unhealthy: METADATABASE,
  },
  airflow_scheduler: airflowPart(
    "Scheduler",
    "Starts the tasks of runs",
    "scheduler",
    "airflow-scheduler",
    "Runs that are started wait in the queue. Tasks that run go on to their end.",
  ),
  airflow_dag_processor: airflowPart(
    "DAG processor",
    "Reads the DAG files",
    "dag-processor",
    "airflow-dag-processor",
    "Workflows that are known run on. New and changed DAG files are not noticed.",
  ),
  airflow_triggerer: airflowPart(
    "Triggerer",
    "Runs deferred agents",
    "triggerer",
    "airflow-triggerer",
    "Agents with deferrable=True, and waits, stand still; they go on from their checkpoints. Agents in workers don't notice.",
  ),
  event_feed: { label: "Event feed", purpose: "Wakes live pages and streams", degraded: FEED, unhealthy: FEED },
  reconciler: {
    label: "Reconciler",
    purpose: "Compares what we know with Airflow",
    degraded: RECONCILER,
    unhealthy: RECONCILER,
  },
  notifications: {
    label: "Notifications",
    purpose: "Sends to users' webhooks",
    degraded: NOTIFICATIONS,
    unhealthy: NOTIFICATIONS,
  },
  langfuse: { label: "Langfuse", purpose: "Traces of agents", degraded: LANGFUSE, unhealthy: LANGFUSE },
  model_provider: {
    label: "Model provider",
    purpose: "Answers the agents' calls",
    degraded: PROVIDER.away,
    unhealthy: PROVIDER.key,
  },
};

interface Component {
  status: string;
  reason?: string | null;
  since?: string | null;
}

/** What a part is called and for; also one that a later backend knows. */
export function partOf(name: string): { label: string; purpose: string } {
  return PARTS[name] ?? { label: name.replaceAll("_", " "), purpose: "" };
}

/** What to do about a part; null when it is healthy. */
export function adviceFor(name: string, component: Component): Advice | null {
  if (component.status === "healthy") return null;
  // The agents' own calls have failed; that counts for more than what a check was answered.
  if (name === "model_provider" && component.since && component.status !== "unhealthy") return PROVIDER.outage;
  const part = PARTS[name];
  if (!part) return { meanwhile: "", steps: ["The backend's log says more: .stack/logs/backend.log."] };
  return component.status === "unhealthy" ? part.unhealthy : part.degraded;
}

const SEVERITY = ["unhealthy", "degraded", "healthy"];

/** The worst first, then the required ones, then by what they are called. */
export function bySeverity<T extends { status: string; required: boolean }>(
  components: Record<string, T>,
): [string, T][] {
  const rank = ([name, part]: [string, T]): string =>
    `${SEVERITY.indexOf(part.status)}${part.required ? 0 : 1}${partOf(name).label}`;
  return Object.entries(components).sort((one, other) => rank(one).localeCompare(rank(other)));
}
