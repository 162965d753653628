"""The tables of conversations for SQLAlchemy. Migrations create them; a test compares the two."""

from sqlalchemy import BigInteger, Boolean, Column, FetchedValue, Integer, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP, UUID

from backend.db.tables import metadata

_Id = UUID(as_uuid=False)
_Time = TIMESTAMP(timezone=True)

conversations = Table(
    "conversations",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("user_id", Text),
    Column("dag_id", Text),
    Column("graph_id", Text),
    Column("metadata", JSONB, nullable=False),
    Column("config", JSONB, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("pruned_seq", BigInteger, nullable=False),
    Column("copied_from", _Id),
    Column("copied_checkpoint", Text),
    Column("shown_from", Text),
    Column("temporary", Boolean, nullable=False),
    Column("expires_at", _Time),
    Column("created_at", _Time, nullable=False),
    Column("updated_at", _Time, nullable=False),
    Column("state_updated_at", _Time),
    Column("deleted_at", _Time),
)

conversation_turns = Table(
    "conversation_turns",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("conversation_id", _Id, nullable=False),
    Column("number", BigInteger, server_default=FetchedValue(), nullable=False),
    Column("execution_id", _Id),
    Column("dag_id", Text, nullable=False),
    Column("dag_run_id", Text),
    Column("assistant_id", _Id),
    Column("user_id", Text),
    Column("strategy", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("request", JSONB, nullable=False),
    Column("after_seq", BigInteger),
    Column("rolled_back", Boolean, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("updated_at", _Time, nullable=False),
    Column("ended_at", _Time),
)

conversation_frames = Table(
    "conversation_frames",
    metadata,
    Column("conversation_id", _Id, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("turn_id", _Id, nullable=False),
    Column("mode", Text, nullable=False),
    Column("namespace", ARRAY(Text), nullable=False),
    Column("data", Text, nullable=False),
    Column("created_at", _Time, nullable=False),
)

conversation_states = Table(
    "conversation_states",
    metadata,
    Column("conversation_id", _Id, primary_key=True),
    Column("checkpoint_ns", Text, primary_key=True),
    Column("checkpoint_id", Text, primary_key=True),
    Column("next", ARRAY(Text), nullable=False),
    Column("tasks", JSONB, nullable=False),
)

assistants = Table(
    "assistants",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("latest", Boolean, nullable=False),
    Column("graph_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("config", JSONB, nullable=False),
    Column("context", JSONB, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("updated_at", _Time, nullable=False),
)

graphs = Table(
    "graphs",
    metadata,
    Column("dag_id", Text, primary_key=True),
    Column("graph_id", Text, nullable=False),
    Column("shown", JSONB, nullable=False),
    Column("updated_at", _Time, nullable=False),
)
