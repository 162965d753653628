"""No secret leaves an operator in an error: LocalExecutor writes a task's error to the scheduler's log as it is."""

import json
import re
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from airflow.sdk.log import mask_secret

from backend.core.process_secrets import process_secrets, secrets_in
from backend.core.settings import get_settings
from backend.core.workflow_error_handler import AgentFailure
from backend.db.address import plain_url
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.postgres import Postgres
from visual_ai_operators import LangGraphOperator

KEY, PASSWORD, OTHER = SECRETS = ("canary key in plain words", "canary-password-of-a-connection", "canary&pass/word")
TEXT: Any = {"type": "text", "model": "openai:gpt-4.1-mini"}


@pytest.fixture(autouse=True)
def environment(
    monkeypatch: pytest.MonkeyPatch, database_url: str, pg: Postgres, openai_server: OpenAIServer
) -> Iterator[None]:
    """A worker with secrets."""
    values = {
        "VISUAL_AI_DATABASE_URL": pg.worker_url,
        "OPENAI_BASE_URL": openai_server.base_url,
        "OPENAI_API_KEY": KEY,
        "AIRFLOW_CONN_SHIPS": f"postgresql://me:{quote(OTHER, safe='')}@ships/db",
        "VISUAL_AI_ERROR_POLICY": json.dumps({"rate_limit": {"retries": 0}, "server": {"retries": 0}}),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    process_secrets.cache_clear()
    mask_secret(PASSWORD)  # as Airflow does with the password of each connection that it returns
    yield
    get_settings.cache_clear()
    process_secrets.cache_clear()


def context() -> Any:
    instance = SimpleNamespace(dag_id="dag", run_id="run", task_id="work", map_index=-1, try_number=1, id="id")
    run = SimpleNamespace(conf={}, run_type="manual", start_date=datetime.now(UTC), triggering_user_name="ulla")
    return {"ti": instance, "dag_run": run, "params": {}, "task_instance": instance}


def stored(pg: Postgres) -> str:
    """All rows of the product's tables as text."""
    with psycopg.connect(plain_url(pg.admin_url)) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'visual_ai'").fetchall()
        found = {
            name: connection.execute(f"SELECT t::text FROM visual_ai.{name} t".encode()).fetchall()
            for (name,) in names
            if name != "signing_keys"
        }
    text = json.dumps(found)
    # What checkpoints hold is shown as hexadecimal digits.
    binary = re.findall(r"x((?:[0-9a-f]{2}){8,})", text)
    return text + "".join(bytes.fromhex(part).decode(errors="replace") for part in binary)


def fails(operator: LangGraphOperator, words: str) -> tuple[BaseException, str]:
    """The error that the operator raises, and what a log has of it."""
    with pytest.raises(Exception, match=words) as raised:
        operator.execute(context())
    return raised.value, "".join(traceback.format_exception(raised.value))


def has_none(text: str) -> bool:
    return not any(variant in text for secret in SECRETS for variant in (secret, quote(secret), quote(secret, safe="")))


@pytest.mark.parametrize("status", [400, 401, 429, 500, "stream"])
def test_a_provider_that_repeats_secrets(openai_server: OpenAIServer, pg: Postgres, status: Any) -> None:
    words = f"Wrong key {KEY!r}: https://ships/?api_key={quote(KEY)}&p={PASSWORD} postgresql://me:{OTHER}@ships/db"
    error = {"message": words, "type": "server_error", "code": None}
    if status == "stream":
        headers = {"content-type": "text/event-stream"}
        openai_server.script(body=f"data: {json.dumps({'error': error})}\n\n", headers=headers, times=None)
    else:
        openai_server.script(status=status, error=error, times=None)
    operator = LangGraphOperator(task_id="work", agent_config=TEXT, input_data={"text": "x"})
    raised, logged = fails(operator, "Wrong key")
    assert has_none(logged)
    assert has_none(stored(pg))
    assert isinstance(operator.failure_behind(raised), AgentFailure)


def test_a_graph_that_fails_with_a_secret(pg: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIP_TOKEN", OTHER)
    process_secrets.cache_clear()
    operator = LangGraphOperator(task_id="work", graph="tests.kit.graphs.failing:with_a_token", input_data={})
    raised, logged = fails(operator, "no ship")
    assert type(raised) is LookupError
    assert has_none(logged)
    assert has_none(stored(pg))


def test_an_error_without_secrets_is_raised_as_it_is() -> None:
    operator = LangGraphOperator(task_id="work", graph="tests.kit.graphs.failing:plainly", input_data={})
    raised, logged = fails(operator, "no ship")
    assert type(raised) is LookupError
    assert "in _plainly" in logged  # where it happened


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("OPENAI_API_KEY", "12345678", ("12345678",)),
        ("DB_PASSWORD", "correct horse", ("correct%20horse", "correct horse")),
        ("GITHUB_TOKEN_2", "12345678", ("12345678",)),
        ("SSH_KEY_PATH", "/home/somebody/.ssh", ()),
        ("TOKEN_LIFETIME", "432000000", ()),
        ("DATABASE_URL", "postgresql://me:s%3Acret%2Fs@db/x", ("s%3Acret%2Fs", "s:cret/s")),
        ("AIRFLOW_CONN_X", "http://user:longpassword@host", ("longpassword",)),
        ("SHORT_KEY", "1234567", ()),
        ("KEYBOARD", "12345678", ()),
        ("HOME", "/home/somebody", ()),
        ("PAGE_URL", "https://host/@user", ()),
        ("BROKEN_URL", "http://[x:y@z", ()),
    ],
)
def test_what_is_a_secret(name: str, value: str, found: tuple[str, ...]) -> None:
    assert sorted(secrets_in({name: value})) == sorted(found)
