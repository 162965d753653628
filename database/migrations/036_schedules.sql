-- depends: 035_validated_events
-- Schedules that are set through the API. Each is carried out by a DAG that is generated from its row: Airflow decides
-- when it is due, and the task of that DAG asks the backend for the run, by a row in `schedule_firings`.
CREATE TABLE visual_ai.schedules (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    -- The schedule of a workflow or of a template, of which there is one each, or one of any number.
    kind             text NOT NULL CHECK (kind IN ('workflow', 'template', 'free')),
    dag_id           text NOT NULL,
    template         text,
    timetable        jsonb NOT NULL,
    timezone         text NOT NULL DEFAULT 'UTC',
    start_date       timestamptz,
    end_date         timestamptz,
    -- From when on runs are due: without catch-up, never before the schedule was set or enabled.
    starts_from      timestamptz NOT NULL,
    catchup          boolean NOT NULL DEFAULT false,
    enabled          boolean NOT NULL DEFAULT true,
    input_data       jsonb NOT NULL DEFAULT '{}',
    model            text,
    budget           jsonb,
    metadata         jsonb NOT NULL DEFAULT '{}',
    -- What is added to the signed part of each run's conf.
    extra            jsonb NOT NULL DEFAULT '{}',
    -- Whose runs they are: the user, what tells the account from a later one of the same name, and the service token
    -- that the schedule was set with.
    user_id          text NOT NULL,
    account          text,
    service_token    text,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    stopped_at       timestamptz,
    stopped_reason   text,
    CHECK ((kind = 'template') <= (template IS NOT NULL)),
    CHECK ((stopped_at IS NULL) = (stopped_reason IS NULL)),
    CHECK (stopped_at IS NULL OR NOT enabled)
);
CREATE UNIQUE INDEX schedules_of_workflows ON visual_ai.schedules (dag_id) WHERE kind = 'workflow';
CREATE UNIQUE INDEX schedules_of_templates ON visual_ai.schedules (template) WHERE kind = 'template';
CREATE INDEX schedules_by_time ON visual_ai.schedules (created_at, id);

-- One time that a schedule was due: the run of its DAG, and what came of it.
CREATE TABLE visual_ai.schedule_firings (
    schedule_id      uuid NOT NULL REFERENCES visual_ai.schedules (id) ON DELETE CASCADE,
    firing           text NOT NULL,
    logical_date     timestamptz,
    assets           text[] NOT NULL DEFAULT '{}',
    requested_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_until    timestamptz,
    settled_at       timestamptz,
    outcome          text CHECK (outcome IN ('started', 'skipped', 'postponed', 'failed')),
    detail           text,
    dag_id           text,
    dag_run_id       text,
    PRIMARY KEY (schedule_id, firing),
    CHECK ((settled_at IS NULL) = (outcome IS NULL))
);
CREATE INDEX schedule_firings_due ON visual_ai.schedule_firings (requested_at) WHERE outcome IS NULL;
CREATE INDEX schedule_firings_newest ON visual_ai.schedule_firings (schedule_id, requested_at DESC);

REVOKE ALL ON visual_ai.schedules, visual_ai.schedule_firings FROM visual_ai_backend, visual_ai_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON visual_ai.schedules TO visual_ai_backend;
GRANT SELECT, DELETE ON visual_ai.schedule_firings TO visual_ai_backend;
GRANT UPDATE (claimed_until, settled_at, outcome, detail, dag_id, dag_run_id) ON visual_ai.schedule_firings
    TO visual_ai_backend;
-- What the generated DAGs are made of. Nobody's input is among it.
GRANT SELECT (id, dag_id, template, timetable, timezone, starts_from, end_date, catchup, enabled)
    ON visual_ai.schedules TO visual_ai_worker;
GRANT SELECT ON visual_ai.schedule_firings TO visual_ai_worker;
GRANT INSERT (schedule_id, firing, logical_date, assets) ON visual_ai.schedule_firings TO visual_ai_worker;
-- A task that Airflow retries asks again.
GRANT UPDATE (requested_at, claimed_until, settled_at, outcome, detail) ON visual_ai.schedule_firings
    TO visual_ai_worker;
