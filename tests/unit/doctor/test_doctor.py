"""`python -m backend doctor` says what a model's server supports, what to set for it, and no secret."""

import json
import logging
import shlex
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from backend.__main__ import app
from backend.core.settings import Settings, get_settings
from backend.doctor.examination import _is_near
from backend.models.resolve import PROVIDERS
from tests.kit.documents.snippets import snippet
from tests.kit.openai.refusals import FUNCTION_CALLING, JSON_MODE, JSON_SCHEMA, STREAM_USAGE, STREAMING
from tests.kit.openai.server import OpenAIServer

pytestmark = pytest.mark.filterwarnings("ignore:.*structured output feature")

KEY = "sk-the-secret-key-1234567890"
MODEL = "openai:my-model"
STREAM, USAGE, SCHEMA, TOOLS, JSON = '"stream":true', '"stream_options"', '"json_schema"', '"tools"', '"json_object"'
OVERFLOW = {
    "error": {"message": "This model's maximum context length is 8192 tokens.", "code": "context_length_exceeded"}
}
ALL = ["answers", "streaming", "usage in streams", "json_schema", "function_calling", "json_mode", "pictures"]

Doctor = Callable[..., Result]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, openai_server: OpenAIServer) -> Iterator[Doctor]:
    """Runs the command in an empty folder, with the test's server as OpenAI's address."""
    for name in {variable for provider in PROVIDERS.values() for variable in provider.key_variables}:
        monkeypatch.delenv(name, raising=False)
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    disabled = logging.root.manager.disable

    def run(*arguments: str) -> Result:
        get_settings.cache_clear()
        return CliRunner().invoke(app, ["doctor", *arguments])

    with warnings.catch_warnings():
        yield run
    logging.disable(disabled)
    get_settings.cache_clear()


def able(server: OpenAIServer) -> None:
    """Script what a server that can do everything says."""
    server.script(contains="What colour", content="Red.", times=None)
    server.script(contains="ship ship ship", status=400, body=OVERFLOW, times=None)
    server.script(contains="fits this JSON Schema", content={"sum": 5}, times=None)


def refuse(server: OpenAIServer, sends: str, given: tuple[int, Any]) -> None:
    server.script(sends=sends, status=given[0], body=given[1], times=None)


def results(done: Result) -> dict[str, str]:
    return {finding["check"]: finding["result"] for finding in json.loads(done.output)["findings"]}


def test_a_server_that_can_do_everything(doctor: Doctor, openai_server: OpenAIServer) -> None:
    able(openai_server)
    done = doctor(MODEL)
    assert done.exit_code == 0
    lines = [line.split() for line in done.output.splitlines() if line.startswith("  ")]
    assert [line[-3] if line[-1] == "s" else line[-1] for line in lines[:7]] == ["yes"] * 7
    assert lines[7][:3] == ["context", "overflow", "yes"]
    assert "Nothing has to be set." in done.output
    assert "The model can be used." in done.output
    assert f"{MODEL}, at {openai_server.base_url}" in done.output
    assert len(openai_server.requests) == 7
    assert KEY not in done.output


@pytest.mark.parametrize(
    ("refused", "expected", "settings"),
    [
        (
            [(STREAM, STREAMING["openai unverified"])],
            {"streaming": "refused", "usage in streams": "not tried"},
            {"streaming": False},
        ),
        ([(USAGE, STREAM_USAGE["fastapi"])], {"streaming": "yes", "usage in streams": "refused"}, None),
        ([(SCHEMA, JSON_SCHEMA["openai"])], {"json_schema": "refused"}, {"output_method": "function_calling"}),
        (
            [(SCHEMA, JSON_SCHEMA["groq"]), (TOOLS, FUNCTION_CALLING["ollama"])],
            {"json_schema": "refused", "function_calling": "refused", "json_mode": "yes"},
            {"output_method": "json_mode"},
        ),
        (
            [(SCHEMA, JSON_SCHEMA["groq"]), (TOOLS, FUNCTION_CALLING["vllm"]), (JSON, JSON_MODE["lm studio"])],
            {"json_schema": "refused", "function_calling": "refused", "json_mode": "refused", "prompt": "yes"},
            {"output_method": "prompt"},
        ),
        ([("What colour", (400, {"error": "this model takes no images"}))], {"pictures": "refused"}, {}),
        ([("ship ship", (400, {"error": "no"}))], {"context overflow": "no"}, {}),
    ],
)
def test_what_a_server_refuses(
    doctor: Doctor,
    openai_server: OpenAIServer,
    refused: list[tuple[str, tuple[int, Any]]],
    expected: dict[str, str],
    settings: dict[str, Any] | None,
) -> None:
    for words, (status, body) in refused:
        place = "contains" if " " in words else "sends"
        openai_server.script(**{place: words}, status=status, body=body, times=None)
    able(openai_server)
    done = doctor(MODEL, "--json")
    assert done.exit_code == 0
    assert {**dict.fromkeys(ALL, "yes"), "context overflow": "yes", **expected} == results(done)
    found = json.loads(done.output)["settings"]
    if settings is None:
        assert found == {"VISUAL_AI_STREAM_USAGE": "false"}
    elif settings:
        modes = json.loads(found.pop("VISUAL_AI_MODEL_MODES"))
        assert (found, modes) == ({}, {MODEL: settings})
        assert Settings(_env_file=None, model_modes=modes).model_modes
    else:
        assert found == {}


def test_what_a_server_ignores(doctor: Doctor, openai_server: OpenAIServer) -> None:
    message = {"role": "assistant", "content": "OK, whatever."}
    body = {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    openai_server.script(body=body, times=None)
    done = doctor(MODEL, "--json")
    assert done.exit_code == 0
    assert results(done) == {
        "answers": "yes", "streaming": "ignored", "usage in streams": "not tried", "json_schema": "ignored",
        "function_calling": "ignored", "json_mode": "ignored", "prompt": "ignored", "pictures": "ignored",
        "context overflow": "no",
    }  # fmt: skip
    report = json.loads(done.output)
    assert any("No structured answer came" in note for note in report["notes"])
    assert json.loads(report["settings"]["VISUAL_AI_MODEL_MODES"]) == {MODEL: {"streaming": False}}


@pytest.mark.parametrize(
    ("script", "category", "advice"),
    [
        ({"status": 401, "error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}},
         "auth", "refuses the key"),
        ({"status": 404}, "bad_request", "check the model's name"),
        ({"preset": "quota"}, "quota", "no credit"),
        ({"preset": "rate_limit"}, "rate_limit", "try again later"),
        ({"preset": "server_error"}, "server", "address"),
        ({"hang": True}, "timeout", "--timeout"),
    ],
)  # fmt: skip
def test_a_model_that_cant_be_used(
    doctor: Doctor, openai_server: OpenAIServer, script: dict[str, Any], category: str, advice: str
) -> None:
    openai_server.script(script.pop("preset", None), **script, times=None)
    done = doctor(MODEL, "--json", "--timeout", "0.5")
    assert done.exit_code == 1
    report = json.loads(done.output)
    assert [finding["result"] for finding in report["findings"]] == ["failed"]
    assert report["findings"][0]["detail"].startswith(f"{category}: ")
    assert advice in report["notes"][0]
    assert report["usable"] is False
    assert KEY not in done.output
    assert len(openai_server.requests) == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["openai:gpt-4.1"], {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}, "needs a key: set OPENAI_API_KEY"),
        (["anthropic:claude"], {}, "ANTHROPIC_API_KEY"),
        (["nobody:model"], {}, "names the unknown provider “nobody”"),
        (["local:nothing"], {}, "the offline models are local:vision and local:text"),
        ([], {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, "The server can't be reached"),
        (
            [],
            {"OPENAI_BASE_URL": "http://someone:hidden-word@127.0.0.1:9/v1?key=hidden-word"},
            "at http://127.0.0.1:9/v1",
        ),
        ([], {"VISUAL_AI_MODEL_MODES": '{"openai:x": {"streaming": "yes"}}'}, "VISUAL_AI_MODEL_MODES"),
    ],
)
def test_what_is_configured_wrongly(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, arguments: list[str], environment: dict[str, str], said: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = doctor(*arguments)
    assert done.exit_code == 1
    assert said in done.output
    assert "The model can't be used." in done.output
    assert "hidden-word" not in done.output


def test_the_settings_are_those_of_the_folder(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    (tmp_path / ".env").write_text(
        f"OPENAI_BASE_URL={openai_server.base_url}\nOPENAI_API_KEY={KEY}\nVISUAL_AI_DEFAULT_MODEL={MODEL}\n"
    )
    able(openai_server)
    done = doctor("--json")
    assert (done.exit_code, json.loads(done.output)["model"]) == (0, MODEL)
    assert {request.model for request in openai_server.requests} == {"my-model"}


def test_an_expensive_prompt_is_sent_only_on_request(doctor: Doctor, openai_server: OpenAIServer) -> None:
    able(openai_server)
    assert results(doctor("openai:gpt-4.1", "--json"))["context overflow"] == "not tried"
    assert all("ship" not in request.prompt for request in openai_server.requests)
    assert results(doctor("openai:gpt-4.1", "--json", "--overflow"))["context overflow"] == "yes"


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("http://127.0.0.1:11434/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://192.168.1.7/v1", True),
        ("http://vllm:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://gpu.internal/v1", True),
        ("https://api.example.com/v1", False),
        ("https://8.8.8.8/v1", False),
        (None, False),
    ],
)
def test_which_servers_get_a_long_prompt_at_an_unknown_price(address: str | None, near: bool) -> None:
    assert _is_near(address) is near


def test_offline_models_say_what_they_are(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, openai_server: OpenAIServer
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    default, as_json = (shlex.split(line)[4:] for line in snippet("doctor").splitlines())
    done = doctor(*default)
    assert done.exit_code == 0
    assert "local:text, offline" in done.output
    assert "no model key is set (OPENAI_API_KEY)" in done.output
    assert "local:text is no language model: it selects sentences" in done.output
    report = json.loads(doctor(*as_json).output)
    assert (report["model"], report["local"], report["usable"], report["requests"]) == ("local:text", True, True, 0)
    assert results(doctor("local:vision", "--json"))["pictures"] == "yes"
    assert openai_server.requests == []
