-- depends: 030_validated_checks
-- Which input of a batch asks, empty outside batches; and when the operator's notifiers have told of the question.
ALTER TABLE visual_ai.questions ADD COLUMN item_index integer, ADD COLUMN notified_at timestamptz;
GRANT UPDATE (try_number, notified_at) ON visual_ai.questions TO visual_ai_worker;

-- Users' webhooks hear of questions. Both tables hold what is not delivered yet, and a few weeks of what is.
ALTER TABLE visual_ai.notification_causes DROP CONSTRAINT notification_causes_event_check;
ALTER TABLE visual_ai.notification_causes ADD CONSTRAINT notification_causes_event_check CHECK (event IN
    ('run_failed', 'budget_threshold', 'rate_limit_threshold', 'alert', 'question'));
ALTER TABLE visual_ai.notifications DROP CONSTRAINT notifications_event_check;
ALTER TABLE visual_ai.notifications ADD CONSTRAINT notifications_event_check CHECK (event IN
    ('run_failed', 'budget_threshold', 'rate_limit_threshold', 'alert', 'question'));
