-- depends: 005_thread_epochs 010_batch_items
-- Which attempt of a node within its try a trace tells of: 1 unless the node, or a model call of it, was tried again.

ALTER TABLE visual_ai.agent_traces ADD COLUMN attempt integer NOT NULL DEFAULT 1;
