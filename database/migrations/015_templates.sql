-- depends: 014_attempts
-- A version of a template is never changed: the backend may say which one is active, and nothing else of it. So what a run
-- records as its template stays what the run was made of.

ALTER TABLE visual_ai.workflow_templates
    -- When it was last made the active one, and when another one took its place or the template was retired.
    ADD COLUMN activated_at   timestamptz,
    ADD COLUMN activated_by   text,
    ADD COLUMN deactivated_at timestamptz,
    ADD COLUMN deactivated_by text;

REVOKE UPDATE, DELETE ON visual_ai.workflow_templates FROM visual_ai_backend;
GRANT UPDATE (active, activated_at, activated_by, deactivated_at, deactivated_by)
    ON visual_ai.workflow_templates TO visual_ai_backend;
