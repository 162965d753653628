-- depends: 034_custom_events
ALTER TABLE visual_ai.workflow_events VALIDATE CONSTRAINT workflow_events_event_type_check;
