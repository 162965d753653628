-- depends: 023_thinned_threads
-- Where the whole of an input or output is that stands in its row as an excerpt.
ALTER TABLE visual_ai.agent_traces
    -- LangGraph's id of the node's execution in its checkpoints; null if they don't keep what nodes return.
    ADD COLUMN checkpoint_task text,
    -- The names of the values in an input, or output, that is cut; empty if they have none. Null: nothing is cut.
    ADD COLUMN input_parts text[],
    ADD COLUMN output_parts text[];

-- The API service reads checkpoints, and nothing else of LangGraph's. Installations of earlier releases granted more.
DO $$
BEGIN
    IF to_regclass('visual_ai.checkpoints') IS NOT NULL THEN
        REVOKE ALL ON visual_ai.checkpoints, visual_ai.checkpoint_blobs, visual_ai.checkpoint_writes, visual_ai.store
            FROM visual_ai_backend;
        GRANT SELECT ON visual_ai.checkpoints, visual_ai.checkpoint_blobs, visual_ai.checkpoint_writes
            TO visual_ai_backend;
    END IF;
END
$$;
