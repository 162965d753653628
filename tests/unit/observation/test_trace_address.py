"""Where traces are: ids that any process knows, and names that Langfuse takes."""

import pytest
from langfuse import Langfuse
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from pydantic import ValidationError

from backend.core.settings import Settings
from backend.observation.tracing.ids import is_traced, langfuse_name, session_of, trace_id_of, trace_url_of

KEYS = {"langfuse_public_key": "pk-lf-1", "langfuse_secret_key": "sk-lf-1"}


def settings(**more: object) -> Settings:
    return Settings(_env_file=None, **KEYS | more)  # type: ignore[arg-type]


def test_an_id_can_be_made_with_the_sdk() -> None:
    thread = "dag/scheduled__2026-01-01T00:00:00+00:00/task/3"
    assert trace_id_of(settings(), thread) == Langfuse.create_trace_id(seed=f"development/{thread}")
    staging = settings(langfuse_environment="staging")
    assert trace_id_of(staging, thread) == Langfuse.create_trace_id(seed=f"staging/{thread}")


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
def test_sampling_is_opentelemetrys(rate: float) -> None:
    for number in range(200):
        trace_id = trace_id_of(settings(), f"dag/run/task/{number}")
        sampler = TraceIdRatioBased(rate)
        decided = sampler.should_sample(None, int(trace_id, 16), "span").decision == Decision.RECORD_AND_SAMPLE
        assert is_traced(settings(langfuse_sample_rate=rate), trace_id) is decided


def test_addresses() -> None:
    trace_id = trace_id_of(settings(), "a")
    assert trace_url_of(settings(), trace_id) == f"https://cloud.langfuse.com/trace/{trace_id}"
    own = settings(langfuse_base_url="http://langfuse.internal/", langfuse_project_id="my project")
    assert trace_url_of(own, trace_id) == f"http://langfuse.internal/project/my%20project/traces/{trace_id}"
    for off in ({"langfuse_tracing": False}, {"langfuse_secret_key": None}, {"langfuse_sample_rate": 0}):
        assert trace_url_of(settings(**off), trace_id) is None


def test_long_names_are_shortened() -> None:
    assert session_of("dag", "manual__1") == "dag/manual__1"
    long = [session_of("d" * 250, f"run-{number}") for number in range(2)]
    assert [len(name) for name in long] == [200, 200]
    assert long[0] != long[1]
    assert langfuse_name("Jörg, 50 %") == "J%C3%B6rg, 50 %"


def test_placeholders_of_the_example_file_are_not_keys() -> None:
    example = settings(langfuse_public_key="your_langfuse_public_key", langfuse_secret_key="your_langfuse_secret_key")
    assert (example.langfuse_public_key, example.langfuse_secret_key, example.tracing) == (None, None, False)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("LANGFUSE_HOST", "cloud.langfuse.com", "write an address"),
        ("LANGFUSE_BASE_URL", "ftp://somewhere", "write an address"),
        ("LANGFUSE_TRACING_ENVIRONMENT", "Production", "a-z"),
        ("LANGFUSE_TRACING_ENVIRONMENT", "langfuse-own", "begin with"),
        ("LANGFUSE_SAMPLE_RATE", "1.5", "less than or equal to 1"),
    ],
)
def test_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=rf"{name}\n.*{message}"):
        Settings(_env_file=None)
