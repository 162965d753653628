-- What monitoring adds up stands in these indexes, so that it is read without the rows' inputs and outputs.

CREATE INDEX workflow_executions_figures ON visual_ai.workflow_executions (queued_at)
    INCLUDE (dag_id, state, started_at, finished_at, input_tokens, output_tokens, cost_usd);

DROP INDEX visual_ai.agent_traces_runs_by_time;
CREATE INDEX agent_traces_figures ON visual_ai.agent_traces (started_at)
    INCLUDE (agent_name, agent_type, model, state, latency_ms, input_tokens, output_tokens, cost_usd, retries, fallbacks)
    WHERE node IS NULL;

DROP INDEX visual_ai.workflow_errors_by_time;
CREATE INDEX workflow_errors_figures ON visual_ai.workflow_errors (occurred_at)
    INCLUDE (category, agent_name, dag_id, recovered);

-- A user's own runs are those started for them and those started by them.
CREATE INDEX workflow_executions_by_starter ON visual_ai.workflow_executions (triggered_by, queued_at DESC);
