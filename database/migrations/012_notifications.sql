-- depends: 001_visual_ai_schema
-- What users want to be told of, what happened that they may want to be told of, and what is to be sent to whom.

-- The role of tasks learns who wants to hear of what, but neither where that is sent nor how it is signed.
ALTER TABLE visual_ai.user_preferences
    ADD COLUMN notified_events text[] NOT NULL DEFAULT '{}',
    -- The shares of budgets at which the user wants to hear of them.
    ADD COLUMN budget_shares double precision[] NOT NULL DEFAULT '{}';
REVOKE SELECT ON visual_ai.user_preferences FROM visual_ai_worker;
GRANT SELECT (user_id, notified_events, budget_shares) ON visual_ai.user_preferences TO visual_ai_worker;

-- Written where something is observed, in the same transaction, and taken by the backend, which knows the targets. Rows
-- are only added here, without a unique key: nobody who records a run ever waits for another one.
CREATE TABLE visual_ai.notification_causes (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id      text NOT NULL,
    execution_id uuid NOT NULL REFERENCES visual_ai.workflow_executions (id) ON DELETE CASCADE,
    event        text NOT NULL CHECK (event IN ('run_failed', 'budget_threshold', 'rate_limit_threshold', 'alert')),
    -- The same each time the same thing is observed.
    cause        text NOT NULL,
    -- The one target it is for; empty: all that want the event.
    target       text,
    payload      jsonb NOT NULL DEFAULT '{}',
    occurred_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX notification_causes_by_user ON visual_ai.notification_causes (user_id, occurred_at);
CREATE INDEX notification_causes_by_execution ON visual_ai.notification_causes (execution_id);

-- One row for each target that is told of a cause. Its address and secret are looked up when it is sent.
CREATE TABLE visual_ai.notifications (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id         text NOT NULL,
    target          text NOT NULL,
    execution_id    uuid NOT NULL REFERENCES visual_ai.workflow_executions (id) ON DELETE CASCADE,
    event           text NOT NULL CHECK (event IN ('run_failed', 'budget_threshold', 'rate_limit_threshold', 'alert')),
    cause           text NOT NULL,
    payload         jsonb NOT NULL,
    occurred_at     timestamptz NOT NULL,
    state           text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'dead')),
    attempts        integer NOT NULL DEFAULT 0,
    -- Not before this; while an attempt is made, the time until which nobody else makes one.
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When it was put into the queue, by its cause or by somebody who wants it sent again.
    queued_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at     timestamptz,
    last_status     integer,
    last_error      text
);
CREATE UNIQUE INDEX notifications_once ON visual_ai.notifications (execution_id, user_id, target, cause);
CREATE INDEX notifications_pending ON visual_ai.notifications (user_id, target, next_attempt_at)
    WHERE state = 'pending';
CREATE INDEX notifications_due ON visual_ai.notifications (next_attempt_at) WHERE state = 'pending';
CREATE INDEX notifications_newest ON visual_ai.notifications (queued_at DESC, id DESC);
CREATE INDEX notifications_dead ON visual_ai.notifications (queued_at DESC, id DESC) WHERE state = 'dead';
CREATE INDEX notifications_rate_limits ON visual_ai.notifications (user_id, target, occurred_at)
    WHERE event = 'rate_limit_threshold';

GRANT SELECT, INSERT, UPDATE, DELETE ON visual_ai.notification_causes, visual_ai.notifications TO visual_ai_backend;
GRANT INSERT ON visual_ai.notification_causes TO visual_ai_worker;
