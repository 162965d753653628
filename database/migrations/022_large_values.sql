-- depends: 021_stalled_runs
-- Inputs and results over 32 KB stand in snapshots and events as an excerpt with a link. What that takes is computed
-- once, when the value is written: `bytes`, `sha256` and `excerpt` of its JSON text; null for a smaller value.
ALTER TABLE visual_ai.workflow_executions
    ADD COLUMN input_reference jsonb,
    ADD COLUMN output_reference jsonb,
    -- The run's result is what the instances of this mapped task returned (mapped_results), instead of output_data.
    ADD COLUMN result_task text;

CREATE FUNCTION visual_ai.reference_to(value jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    whole text := value::text;
BEGIN
    IF whole IS NULL OR octet_length(whole) <= 32768 THEN
        RETURN NULL;
    END IF;
    RETURN jsonb_build_object(
        'bytes', octet_length(whole),
        'sha256', encode(sha256(convert_to(whole, 'UTF8')), 'hex'),
        'excerpt', left(whole, 4000));
END
$$;

-- Triggers, so that it is true for every writer, also of the previous release while a deployment rolls.
CREATE FUNCTION visual_ai.refer_to_input() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.input_reference := visual_ai.reference_to(NEW.input_data);
    RETURN NEW;
END
$$;
CREATE FUNCTION visual_ai.refer_to_output() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.output_reference := visual_ai.reference_to(NEW.output_data);
    IF NEW.output_data IS NOT NULL THEN
        NEW.result_task := NULL;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER refer_to_input BEFORE INSERT OR UPDATE OF input_data ON visual_ai.workflow_executions
    FOR EACH ROW EXECUTE FUNCTION visual_ai.refer_to_input();
CREATE TRIGGER refer_to_output BEFORE INSERT OR UPDATE OF output_data ON visual_ai.workflow_executions
    FOR EACH ROW WHEN (NEW.output_data IS NOT NULL OR NEW.output_reference IS NOT NULL)
    EXECUTE FUNCTION visual_ai.refer_to_output();

-- The stored size, which is free to read, is that after compression, 1 in 255 at best.
UPDATE visual_ai.workflow_executions SET input_data = input_data
    WHERE pg_column_size(input_data) > 100 AND octet_length(input_data::text) > 32768;
UPDATE visual_ai.workflow_executions SET output_data = output_data
    WHERE pg_column_size(output_data) > 100 AND octet_length(output_data::text) > 32768;

-- What each instance of a mapped agent task returned. The last mapped task's are the run's result.
CREATE TABLE visual_ai.mapped_results (
    execution_id uuid NOT NULL REFERENCES visual_ai.workflow_executions (id) ON DELETE CASCADE,
    task_id      text NOT NULL,
    map_index    integer NOT NULL,
    value        jsonb NOT NULL,
    -- Of the value's JSON text.
    bytes        bigint NOT NULL,
    sha256       text NOT NULL,
    recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (execution_id, task_id, map_index)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON visual_ai.mapped_results TO visual_ai_backend;
GRANT SELECT, INSERT, UPDATE ON visual_ai.mapped_results TO visual_ai_worker;

-- Finds those runs soon after their end, in case an instance's result did not arrive.
CREATE INDEX workflow_executions_mapped ON visual_ai.workflow_executions (finished_at)
    WHERE state = 'success' AND result_task IS NOT NULL;

-- The JSON text of large values that somebody is downloading, cut into pieces: PostgreSQL can't read a part of a jsonb
-- value. A cache by content, made on demand, deleted an hour later, and lost in a crash without harm.
CREATE UNLOGGED TABLE visual_ai.value_pieces (
    sha256  text NOT NULL,
    start   bigint NOT NULL,
    content bytea NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (sha256, start)
);
ALTER TABLE visual_ai.value_pieces ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE INDEX value_pieces_by_age ON visual_ai.value_pieces (made_at);
GRANT SELECT, INSERT, DELETE ON visual_ai.value_pieces TO visual_ai_backend;

-- A run's agents without their nodes, newest first, whatever the number of nodes.
CREATE INDEX agent_traces_agents ON visual_ai.agent_traces (execution_id, started_at, id) WHERE node IS NULL;
