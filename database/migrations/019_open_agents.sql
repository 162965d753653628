-- depends: 018_failure_reasons
-- The reconciler looks for agents whose end was not recorded. Few rows are open at a time.
CREATE INDEX agent_traces_open ON visual_ai.agent_traces (execution_id) WHERE state = 'running';
