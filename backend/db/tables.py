"""The tables for SQLAlchemy. Migrations create them; a test compares the two."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Double,
    FetchedValue,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP, UUID

metadata = MetaData(schema="visual_ai")

_Id = UUID(as_uuid=False)
_Time = TIMESTAMP(timezone=True)

workflow_executions = Table(
    "workflow_executions",
    metadata,
    Column("id", _Id, primary_key=True, server_default=FetchedValue()),
    Column("dag_id", Text, nullable=False),
    Column("dag_run_id", Text, nullable=False),
    Column("run_type", Text),
    Column("user_id", Text),
    Column("triggered_by", Text),
    Column("state", Text, nullable=False),
    Column("progress", SmallInteger, nullable=False),
    Column("tasks_total", Integer, nullable=False),
    Column("tasks_done", Integer, nullable=False),
    Column("input_data", JSONB, nullable=False),
    Column("output_data", JSONB),
    Column("idempotency_key", Text),
    Column("template_name", Text),
    Column("template_version", Integer),
    Column("queued_at", _Time, nullable=False),
    Column("started_at", _Time),
    Column("finished_at", _Time),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_usd", Numeric(18, 8)),
    Column("trace_url", Text),
    Column("last_seq", BigInteger, nullable=False),
    Column("pruned_seq", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("updated_at", _Time, nullable=False),
    Column("cancel_requested_at", _Time),
    Column("reason", Text),
    Column("waits_for", Text),
    Column("forked_from", JSONB),
    Column("input_reference", JSONB),
    Column("output_reference", JSONB),
    Column("result_task", Text),
)

workflow_tasks = Table(
    "workflow_tasks",
    metadata,
    Column("execution_id", _Id, primary_key=True),
    Column("task_id", Text, primary_key=True),
    Column("map_index", Integer, primary_key=True),
    Column("try_number", Integer, nullable=False),
    Column("state", Text),
    Column("started_at", _Time),
    Column("finished_at", _Time),
    Column("duration", Double),
    Column("updated_at", _Time, nullable=False),
)

agent_traces = Table(
    "agent_traces",
    metadata,
    Column("id", _Id, primary_key=True, server_default=FetchedValue()),
    Column("execution_id", _Id, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("map_index", Integer, nullable=False),
    Column("try_number", Integer, nullable=False),
    Column("agent_name", Text, nullable=False),
    Column("agent_type", Text, nullable=False),
    Column("node", Text),
    Column("model", Text),
    Column("state", Text, nullable=False),
    Column("started_at", _Time, nullable=False),
    Column("finished_at", _Time),
    Column("latency_ms", Double),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_usd", Numeric(18, 8)),
    Column("retries", Integer, nullable=False),
    Column("fallbacks", Integer, nullable=False),
    Column("notice", Text),
    Column("trace_id", Text),
    Column("trace_url", Text),
    Column("input", JSONB),
    Column("output", JSONB),
    Column("item_index", Integer),
    Column("attempt", Integer, nullable=False),
    Column("checkpoint_task", Text),
    Column("input_parts", ARRAY(Text)),
    Column("output_parts", ARRAY(Text)),
)

workflow_errors = Table(
    "workflow_errors",
    metadata,
    Column("id", _Id, primary_key=True, server_default=FetchedValue()),
    Column("execution_id", _Id, nullable=False),
    Column("dag_id", Text, nullable=False),
    Column("dag_run_id", Text, nullable=False),
    Column("task_id", Text),
    Column("map_index", Integer, nullable=False),
    Column("try_number", Integer),
    Column("agent_name", Text),
    Column("model", Text),
    Column("node", Text),
    Column("category", Text, nullable=False),
    Column("exception_type", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("retry_in", Double),
    Column("recovered", Boolean, nullable=False),
    Column("context", JSONB, nullable=False),
    Column("occurred_at", _Time, nullable=False),
    Column("item_index", Integer),
)

user_preferences = Table(
    "user_preferences",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("default_model", Text),
    Column("settings", JSONB, nullable=False),
    Column("updated_at", _Time, nullable=False),
    Column("notified_events", ARRAY(Text), nullable=False),
    Column("budget_shares", ARRAY(Double), nullable=False),
)

workflow_templates = Table(
    "workflow_templates",
    metadata,
    Column("id", _Id, primary_key=True, server_default=FetchedValue()),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("dag_id", Text, nullable=False),
    Column("definition", JSONB, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created_by", Text),
    Column("created_at", _Time, nullable=False),
    Column("activated_at", _Time),
    Column("activated_by", Text),
    Column("deactivated_at", _Time),
    Column("deactivated_by", Text),
)

workflow_events = Table(
    "workflow_events",
    metadata,
    Column("execution_id", _Id, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("event_type", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("created_at", _Time, nullable=False),
)

workflow_threads = Table(
    "workflow_threads",
    metadata,
    Column("thread_id", Text, primary_key=True),
    Column("execution_id", _Id, nullable=False),
    Column("try_number", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("instance", Text),
    Column("agents", ARRAY(Text), nullable=False),
    Column("input_hash", Text, nullable=False),
    Column("completed", Boolean, nullable=False),
    Column("updated_at", _Time, nullable=False),
    Column("thinned", Boolean, nullable=False),
)

batch_items = Table(
    "batch_items",
    metadata,
    Column("execution_id", _Id, primary_key=True),
    Column("task_id", Text, primary_key=True),
    Column("map_index", Integer, primary_key=True),
    Column("item_index", Integer, primary_key=True),
    Column("state", Text, nullable=False),
    Column("try_number", Integer, nullable=False),
    Column("output", JSONB),
    Column("error", Text),
    Column("category", Text),
    Column("model", Text),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_usd", Numeric(18, 8)),
    Column("latency_ms", Double),
    Column("trace_id", Text),
    Column("trace_url", Text),
    Column("finished_at", _Time, nullable=False),
)

model_limits = Table(
    "model_limits",
    metadata,
    Column("model", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("state", JSONB, nullable=False),
    *(
        Column(name, kind, FetchedValue())
        for name, kind in (
            ("phase", Text),
            ("rate", Double),
            ("held_until", _Time),
            ("active_at", _Time),
            ("opened_at", _Time),
            ("held_back", BigInteger),
            ("rate_limited", BigInteger),
            ("opened", BigInteger),
        )
    ),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_hash", Text, nullable=False),
    Column("dag_id", Text, nullable=False),
    Column("dag_run_id", Text, nullable=False),
    Column("execution_id", _Id, nullable=False),
    Column("created_at", _Time, nullable=False),
)

images = Table(
    "images",
    metadata,
    Column("id", _Id, primary_key=True, server_default=FetchedValue()),
    Column("user_id", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("created_at", _Time, nullable=False),
)

notification_causes = Table(
    "notification_causes",
    metadata,
    Column("id", _Id, primary_key=True, server_default=FetchedValue()),
    Column("user_id", Text, nullable=False),
    Column("execution_id", _Id, nullable=False),
    Column("event", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("target", Text),
    Column("payload", JSONB, nullable=False),
    Column("occurred_at", _Time, nullable=False),
)

notifications = Table(
    "notifications",
    metadata,
    Column("id", _Id, primary_key=True, server_default=FetchedValue()),
    Column("user_id", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("execution_id", _Id, nullable=False),
    Column("event", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("occurred_at", _Time, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", _Time, nullable=False),
    Column("queued_at", _Time, nullable=False),
    Column("finished_at", _Time),
    Column("last_status", Integer),
    Column("last_error", Text),
)

mapped_results = Table(
    "mapped_results",
    metadata,
    Column("execution_id", _Id, primary_key=True),
    Column("task_id", Text, primary_key=True),
    Column("map_index", Integer, primary_key=True),
    Column("value", JSONB, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("recorded_at", _Time, nullable=False),
)

value_pieces = Table(
    "value_pieces",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("made_at", _Time, nullable=False),
)

revoked_sessions = Table(
    "revoked_sessions",
    metadata,
    Column("token_id", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("expires_at", _Time, nullable=False),
    Column("revoked_at", _Time, nullable=False),
)

session_cutoffs = Table(
    "session_cutoffs",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("not_before", Double, nullable=False),
    Column("set_by", Text, nullable=False),
    Column("set_at", _Time, nullable=False),
)

sign_in_attempts = Table(
    "sign_in_attempts",
    metadata,
    Column("account", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("blocked_until", _Time),
    Column("last_attempt_at", _Time, nullable=False),
    Column("last_success_at", _Time),
)

service_tokens = Table(
    "service_tokens",
    metadata,
    Column("id", _Id, primary_key=True, server_default=FetchedValue()),
    Column("prefix", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("name", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("account", Text),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("dag_ids", ARRAY(Text)),
    Column("created_at", _Time, nullable=False),
    Column("expires_at", _Time, nullable=False),
    Column("last_used_at", _Time),
    Column("revoked_at", _Time),
    Column("revoked_by", Text),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigInteger, primary_key=True, server_default=FetchedValue()),
    Column("occurred_at", _Time, nullable=False, server_default=FetchedValue()),
    Column("action", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("user_id", Text),
    Column("role", Text),
    Column("credential", Text),
    Column("address", Text),
    Column("object", Text),
    Column("details", JSONB, nullable=False),
    Column("request_id", Text),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("key", LargeBinary, nullable=False),
    Column("created_at", _Time, nullable=False),
)

questions = Table(
    "questions",
    metadata,
    Column("id", _Id, primary_key=True, server_default=FetchedValue()),
    Column("execution_id", _Id, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("map_index", Integer, nullable=False),
    Column("try_number", Integer, nullable=False),
    Column("agent", Text, nullable=False),
    Column("node", Text),
    Column("thread_id", Text, nullable=False),
    Column("pause", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("content", JSONB),
    Column("answer_schema", JSONB),
    Column("asked_at", _Time, nullable=False),
    Column("expires_at", _Time),
    Column("assignees", ARRAY(Text), nullable=False),
    Column("four_eyes", Boolean, nullable=False),
    Column("answered_at", _Time),
    Column("answer", JSONB),
    Column("decision", Text),
    Column("answered_by", Text),
    Column("answered_via", Text),
    Column("idempotency_key", Text),
    Column("parked_at", _Time),
    Column("woken_at", _Time),
    Column("closed_at", _Time),
    Column("closed_reason", Text),
    Column("item_index", Integer),
    Column("notified_at", _Time),
)

tool_calls = Table(
    "tool_calls",
    metadata,
    Column("execution_id", _Id, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("map_index", Integer, nullable=False),
    Column("try_number", Integer, nullable=False),
    Column("thread_id", Text, primary_key=True),
    Column("place", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("call_id", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("arguments", JSONB),
    Column("claimant", _Id, nullable=False),
    Column("claimed_at", _Time, nullable=False),
    Column("finished_at", _Time),
    Column("state", Text, nullable=False),
    Column("result", JSONB),
)

operator_limits = Table(
    "operator_limits",
    metadata,
    Column("id", Text, primary_key=True),
    Column("subject_type", Text, nullable=False),
    Column("subject_name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("amount", Numeric(20, 6), nullable=False),
    Column("updated_by", Text, nullable=False),
    Column("updated_at", _Time, nullable=False),
)

limit_usage = Table(
    "limit_usage",
    metadata,
    Column("period", Text, primary_key=True),
    Column("starts_on", Date, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("dag_id", Text, primary_key=True),
    Column("tokens", BigInteger, nullable=False),
    Column("cost_usd", Numeric(18, 8), nullable=False),
)

limit_reservations = Table(
    "limit_reservations",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("execution_id", _Id, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("dag_id", Text, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost_usd", Numeric(18, 8), nullable=False),
    Column("expires_at", _Time, nullable=False),
)

run_slots = Table(
    "run_slots",
    metadata,
    Column("execution_id", _Id, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("dag_id", Text, nullable=False),
    Column("expires_at", _Time, nullable=False),
)

open_streams = Table(
    "open_streams",
    metadata,
    Column("process_id", _Id, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("streams", Integer, nullable=False),
    Column("seen_at", _Time, nullable=False),
)

account_roles = Table(
    "account_roles",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("role", Text, primary_key=True),
)

dag_teams = Table(
    "dag_teams",
    metadata,
    Column("dag_id", Text, primary_key=True),
    Column("team", Text, nullable=False),
)

limit_refusals = Table(
    "limit_refusals",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("refused", BigInteger, nullable=False),
)

trigger_windows = Table(
    "trigger_windows",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("minute", BigInteger, nullable=False),
    Column("triggers", Integer, nullable=False),
    Column("previous", Integer, nullable=False),
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", _Id, primary_key=True, server_default=FetchedValue()),
    Column("kind", Text, nullable=False),
    Column("dag_id", Text, nullable=False),
    Column("template", Text),
    Column("timetable", JSONB, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("start_date", _Time),
    Column("end_date", _Time),
    Column("starts_from", _Time, nullable=False),
    Column("catchup", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("input_data", JSONB, nullable=False),
    Column("model", Text),
    Column("budget", JSONB(none_as_null=True)),
    Column("metadata", JSONB, nullable=False),
    Column("extra", JSONB, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("account", Text),
    Column("service_token", Text),
    Column("created_at", _Time, nullable=False),
    Column("updated_at", _Time, nullable=False),
    Column("stopped_at", _Time),
    Column("stopped_reason", Text),
)

schedule_firings = Table(
    "schedule_firings",
    metadata,
    Column("schedule_id", _Id, primary_key=True),
    Column("firing", Text, primary_key=True),
    Column("logical_date", _Time),
    Column("assets", ARRAY(Text), nullable=False),
    Column("requested_at", _Time, nullable=False),
    Column("claimed_until", _Time),
    Column("settled_at", _Time),
    Column("outcome", Text),
    Column("detail", Text),
    Column("dag_id", Text),
    Column("dag_run_id", Text),
)
