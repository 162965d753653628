-- depends: 036_schedules
-- Conversations: LangGraph threads that outlive a run. Each turn of one is a run, or goes on with a run that has asked.
CREATE TABLE visual_ai.conversations (
    id                uuid PRIMARY KEY,
    user_id           text,
    -- Of the latest turn.
    dag_id            text,
    graph_id          text,
    metadata          jsonb NOT NULL DEFAULT '{}',
    config            jsonb NOT NULL DEFAULT '{}',
    -- Of the frames.
    last_seq          bigint NOT NULL DEFAULT 0,
    pruned_seq        bigint NOT NULL DEFAULT 0,
    -- The conversation whose states this one begins with, until its first turn has copied them.
    copied_from       uuid,
    copied_checkpoint text,
    -- States before this checkpoint are no longer shown.
    shown_from        text,
    temporary         boolean NOT NULL DEFAULT false,
    expires_at        timestamptz,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    state_updated_at  timestamptz,
    deleted_at        timestamptz
);
CREATE INDEX conversations_by_creation ON visual_ai.conversations (created_at DESC, id) WHERE deleted_at IS NULL;
CREATE INDEX conversations_by_update ON visual_ai.conversations (updated_at DESC) WHERE deleted_at IS NULL;
CREATE INDEX conversations_by_user ON visual_ai.conversations (user_id, updated_at DESC) WHERE deleted_at IS NULL;
CREATE INDEX conversations_by_metadata ON visual_ai.conversations USING gin (metadata jsonb_path_ops);
CREATE INDEX conversations_deleted ON visual_ai.conversations (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE visual_ai.conversation_turns (
    id              uuid PRIMARY KEY,
    conversation_id uuid NOT NULL REFERENCES visual_ai.conversations (id) ON DELETE CASCADE,
    number          bigint GENERATED ALWAYS AS IDENTITY,
    -- Unknown until the run is started.
    execution_id    uuid,
    dag_id          text NOT NULL,
    dag_run_id      text,
    assistant_id    uuid,
    user_id         text,
    strategy        text NOT NULL DEFAULT 'enqueue'
        CHECK (strategy IN ('reject', 'interrupt', 'rollback', 'enqueue')),
    state           text NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'running', 'paused', 'success', 'error', 'cancelled')),
    metadata        jsonb NOT NULL DEFAULT '{}',
    request         jsonb NOT NULL DEFAULT '{}',
    -- The last frame before its own.
    after_seq       bigint,
    rolled_back     boolean NOT NULL DEFAULT false,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at        timestamptz
);
CREATE INDEX conversation_turns_by_conversation ON visual_ai.conversation_turns (conversation_id, number DESC);
CREATE INDEX conversation_turns_under_way ON visual_ai.conversation_turns (conversation_id) WHERE ended_at IS NULL;
CREATE INDEX conversation_turns_by_execution ON visual_ai.conversation_turns (execution_id);

-- What a turn's graph streams, in the words of LangGraph's protocol. `data` is JSON, exactly as it is sent.
CREATE TABLE visual_ai.conversation_frames (
    conversation_id uuid NOT NULL REFERENCES visual_ai.conversations (id) ON DELETE CASCADE,
    seq             bigint NOT NULL,
    turn_id         uuid NOT NULL,
    mode            text NOT NULL,
    namespace       text[] NOT NULL,
    data            text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (conversation_id, seq)
);

-- What LangGraph says of a checkpoint and can't be read from it without the graph's code.
CREATE TABLE visual_ai.conversation_states (
    conversation_id uuid NOT NULL REFERENCES visual_ai.conversations (id) ON DELETE CASCADE,
    checkpoint_ns   text NOT NULL,
    checkpoint_id   text NOT NULL,
    next            text[] NOT NULL,
    tasks           jsonb NOT NULL,
    PRIMARY KEY (conversation_id, checkpoint_ns, checkpoint_id)
);

-- LangGraph's assistants, beside those that stand for a graph as it is.
CREATE TABLE visual_ai.assistants (
    id          uuid NOT NULL,
    version     integer NOT NULL,
    latest      boolean NOT NULL,
    graph_id    text NOT NULL,
    name        text NOT NULL,
    description text,
    config      jsonb NOT NULL DEFAULT '{}',
    context     jsonb NOT NULL DEFAULT '{}',
    metadata    jsonb NOT NULL DEFAULT '{}',
    created_by  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id, version)
);
CREATE UNIQUE INDEX assistants_latest ON visual_ai.assistants (id) WHERE latest;

-- The graphs that have DAGs of their own: what they are, as whoever parses the DAGs has found out.
CREATE TABLE visual_ai.graphs (
    dag_id     text PRIMARY KEY,
    graph_id   text NOT NULL,
    shown      jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

REVOKE ALL ON visual_ai.graphs, visual_ai.conversations, visual_ai.conversation_turns, visual_ai.conversation_frames,
    visual_ai.conversation_states, visual_ai.assistants FROM visual_ai_backend, visual_ai_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON visual_ai.conversations, visual_ai.conversation_turns,
    visual_ai.conversation_frames, visual_ai.conversation_states, visual_ai.assistants TO visual_ai_backend;
GRANT SELECT ON visual_ai.graphs TO visual_ai_backend;
GRANT SELECT, INSERT, UPDATE ON visual_ai.graphs, visual_ai.conversations, visual_ai.conversation_turns,
    visual_ai.conversation_states TO visual_ai_worker;
GRANT SELECT, INSERT ON visual_ai.conversation_frames TO visual_ai_worker;
-- LangGraph's clients read and write its store through the API; a new installation gets it later, with this right.
DO $$
BEGIN
    IF to_regclass('visual_ai.store') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON visual_ai.store TO visual_ai_backend;
    END IF;
END
$$;
