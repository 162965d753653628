-- depends: 010_batch_items
-- Finds the runs whose events are to be pruned. `pruned_seq` and `finished_at` stay as they are when an event is appended:
-- an index on what changes then would make each append dearer.

CREATE INDEX workflow_executions_unpruned ON visual_ai.workflow_executions (finished_at)
    WHERE finished_at IS NOT NULL AND pruned_seq = 0;
