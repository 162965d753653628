"""The policy table, how it may be changed, and the decision after an error."""

from typing import Any

import pytest
from pydantic import ValidationError

from backend.core.errors.fallbacks import DEFAULT_FALLBACKS, pick_fallback
from backend.core.errors.input_error import InputError
from backend.core.errors.policy import Rule
from backend.core.settings import Settings
from backend.core.workflow_error_handler import (
    CATEGORIES,
    DEFAULT_POLICY,
    FINAL,
    AgentFailure,
    Category,
    Classified,
    Decision,
    ErrorPolicy,
    Fail,
    FailureSignals,
    FallbackModel,
    Repair,
    Reschedule,
    Retry,
    SwitchModel,
    action_of,
    as_failure,
    classify,
    decide,
    parse_error_policy,
    wait_of,
)

MODEL = "openai:gpt-4o"
SMALL, LARGE, UNKNOWN = (
    FallbackModel("openai:small", 8_000),
    FallbackModel("openai:large", 100_000),
    FallbackModel("openai:own"),
)
ELSEWHERE = FallbackModel("anthropic:claude", 200_000)


def failed(category: Category, target: str = MODEL, **more: Any) -> FailureSignals:
    return FailureSignals(category, target, **more)


def after(category: Category, times: int, policy: ErrorPolicy = DEFAULT_POLICY, **more: Any) -> Decision:
    """The decision after a failure that was preceded by `times` of its kind."""
    options = more.pop("options", ())
    if tokens := more.pop("tokens", None):  # of the prompt, as it is and after trimming
        more["prompt_tokens"], more["min_prompt_tokens"] = tokens
    return decide(policy, failed(category, **more), [failed(category)] * times, options=options)


@pytest.mark.parametrize(
    ("category", "waits"),
    [("rate_limit", [1, 2, 4, 8, 16]), ("timeout", [0.5, 1, 2]), ("server", [1, 2, 4])],
)
def test_transient_errors_are_retried_with_growing_waits(category: Category, waits: list[float]) -> None:
    assert [wait_of(after(category, times)) for times in range(len(waits))] == waits
    assert after(category, len(waits)) == Fail(final=False)


def test_the_jitter_is_full() -> None:
    failure, history = failed("server"), [failed("server")] * 2
    assert [wait_of(decide(DEFAULT_POLICY, failure, history, draw=draw)) for draw in (0.0, 0.25, 1.0)] == [0, 1, 4]


def test_waits_are_limited() -> None:
    policy = parse_error_policy({"server": {"retries": 20}, "rate_limit": {"retries": 20, "max_backoff": 3600}})
    assert wait_of(after("server", 10, policy)) == 30
    assert wait_of(after("rate_limit", 19, policy)) == policy.wait_limit


def test_the_providers_wait_takes_precedence() -> None:
    assert after("rate_limit", 0, retry_after=20.0) == Retry(20.0)
    assert after("rate_limit", 4, retry_after=0.5) == Retry(0.5)
    assert after("server", 1, retry_after=7.0) == Retry(7.0)


def test_a_long_wait_reschedules_the_task() -> None:
    assert after("rate_limit", 0, retry_after=60.0) == Retry(60.0)
    assert after("rate_limit", 0, retry_after=60.5) == Reschedule(60.5)
    assert after("rate_limit", 9, retry_after=600.0) == Reschedule(600.0)  # it costs no retries
    assert after("rate_limit", 0, retry_after=86_401.0) == Fail(final=False)
    assert after("server", 0, retry_after=600.0) == Reschedule(600.0)
    assert after("server", 0, retry_after=600.0, options=[LARGE]) == SwitchModel(LARGE.model)
    patient = parse_error_policy({"wait_limit": 700, "reschedule_limit": 0})
    assert after("rate_limit", 0, patient, retry_after=600.0) == Retry(600.0)
    assert after("rate_limit", 0, patient, retry_after=701.0) == Fail(final=False)


def test_each_retry_after_a_timeout_has_a_shorter_timeout() -> None:
    timeouts = [120.0]
    for times in range(3):
        decision = after("timeout", times, timeout=timeouts[-1])
        assert isinstance(decision, Retry)
        assert decision.timeout is not None
        timeouts.append(decision.timeout)
    assert timeouts == [120, 60, 30, 15]
    assert after("server", 0, timeout=30.0) == Retry(1.0, 30.0)


def test_retries_are_counted_per_model() -> None:
    history = [failed("server")] * 3 + [failed("server", SMALL.model)]
    assert decide(DEFAULT_POLICY, failed("server", SMALL.model), history) == Retry(2.0)
    assert decide(DEFAULT_POLICY, failed("rate_limit"), history) == Retry(1.0)


def test_a_fallback_model_follows_the_retries() -> None:
    assert after("server", 2, options=[LARGE]) == Retry(4.0)
    assert after("server", 3, options=[LARGE]) == SwitchModel(LARGE.model)
    assert after("server", 3, options=[SMALL, LARGE], prompt_tokens=9_000) == SwitchModel(LARGE.model)
    assert after("server", 3, options=[SMALL], tokens=(9_000, 100)) == Fail(final=False)  # nothing is cut for it
    assert after("rate_limit", 5, options=[LARGE]) == Fail(final=False)
    impatient = parse_error_policy({"rate_limit": {"retries": 0, "fallback": True}})
    assert after("rate_limit", 0, impatient, options=[LARGE]) == SwitchModel(LARGE.model)


def test_an_overflow_is_never_retried() -> None:
    assert after("context_length", 0, options=[SMALL, LARGE], prompt_tokens=9_000) == SwitchModel(LARGE.model)
    assert after("context_length", 0, options=[SMALL, UNKNOWN], prompt_tokens=9_000) == SwitchModel(UNKNOWN.model)
    assert after("context_length", 0) == Fail(final=True)
    # No model holds it, so the one with the largest window gets a trimmed prompt.
    assert after(
        "context_length", 0, options=[SMALL, LARGE], prompt_tokens=200_000, min_prompt_tokens=500
    ) == SwitchModel(LARGE.model, LARGE.context_window)
    assert after("context_length", 0, options=[SMALL], tokens=(200_000, 9_000)) == Fail(final=True)
    whole = parse_error_policy({"context_length": {"trim": False}})
    assert after("context_length", 0, whole, options=[SMALL], tokens=(200_000, 500)) == Fail(final=True)


def test_an_open_circuit_switches_to_another_provider() -> None:
    down: dict[str, Any] = {"circuit_open": True, "retry_after": 20.0}
    assert after("server", 0, options=[LARGE, ELSEWHERE], **down) == SwitchModel(ELSEWHERE.model)
    assert after("server", 0, options=[LARGE], **down) == Retry(20.0)
    assert after("server", 0, options=[], circuit_open=True, retry_after=300.0) == Reschedule(300.0)


def test_an_unusable_fallback_model_counts_as_none() -> None:
    history = [failed("server")] * 4
    missing = failed("bad_request", LARGE.model, is_fallback=True)
    assert decide(DEFAULT_POLICY, missing, history, options=[UNKNOWN]) == SwitchModel(UNKNOWN.model)
    assert decide(DEFAULT_POLICY, missing, history) == Fail(final=False)
    overflown = [failed("context_length")]
    assert decide(DEFAULT_POLICY, missing, overflown) == Fail(final=True)


def test_an_answer_in_the_wrong_form_is_repaired_once() -> None:
    assert after("invalid_output", 0, repairable=True) == Repair()
    assert after("invalid_output", 1, repairable=True) == Fail(final=True)
    assert after("invalid_output", 0) == Fail(final=True)


def test_a_server_can_forbid_retries() -> None:
    assert after("rate_limit", 0, retry_forbidden=True) == Fail(final=False)
    assert after("server", 0, retry_forbidden=True, options=[LARGE]) == SwitchModel(LARGE.model)


@pytest.mark.parametrize("category", [category for category in CATEGORIES if DEFAULT_POLICY.rule(category) == Rule()])
def test_other_categories_fail(category: Category) -> None:
    assert after(category, 0, options=[LARGE], retry_after=1.0) == Fail(final=category in FINAL)


def test_names_and_waits_of_decisions() -> None:
    decisions: list[Decision] = [Retry(1), SwitchModel("m"), Reschedule(9), Repair(), Fail(True), Fail(False)]
    named = ["retry", "fallback", "reschedule", "repair", "fail", "task_retry"]
    assert [action_of(decision) for decision in decisions] == named
    assert [wait_of(decision) for decision in decisions] == [1, None, 9, None, None, None]


def test_a_failure_carries_its_decision_and_what_the_error_is() -> None:
    error = TimeoutError("too slow")
    failure = AgentFailure(error, classify(error), Reschedule(90.0))
    assert (str(failure), failure.__cause__, failure.reschedule_after) == ("too slow", error, 90)
    assert not failure.recorded
    recorded = failure.as_recorded()
    assert (recorded.error, recorded.decision, recorded.recorded) == (error, Reschedule(90.0), True)
    assert recorded.as_recorded() is recorded


def test_a_failure_without_a_decision_leaves_it_to_the_task() -> None:
    for error, final in ((ValueError("a bug"), False), (InputError("is empty"), True)):
        failure = as_failure(error)
        assert failure.decision == Fail(final)
        assert failure.reschedule_after is None
        assert as_failure(failure) is failure


def test_what_wraps_a_failure_is_classified_as_the_failure_was() -> None:
    known = Classified("quota", "Elsewhere", "no credit", True, ())
    outer = RuntimeError("items failed")
    outer.__cause__ = AgentFailure(ValueError("a bug"), known)
    assert classify(outer) is known


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("no", "error_policy: has to be a dict, not str"),
        ({"ratelimit": {}}, r"error_policy\.ratelimit: is not known; an error policy has rate_limit, timeout, server,"),
        ({"rate_limit": 3}, r"error_policy\.rate_limit: has to be a dict, not int"),
        (
            {"rate_limit": {"retry": 3}},
            r"error_policy\.rate_limit\.retry: is not known; rate_limit has retries, backoff,",
        ),
        ({"rate_limit": {"retries": -1}}, r"error_policy\.rate_limit\.retries: has to be a whole number from 0 to 20"),
        ({"rate_limit": {"retries": True}}, r"error_policy\.rate_limit\.retries: has to be a whole number"),
        ({"server": {"backoff": "soon"}}, r"error_policy\.server\.backoff: has to be a number from 0 to 3600"),
        ({"server": {"backoff": float("nan")}}, r"error_policy\.server\.backoff: has to be a number"),
        ({"server": {"fallback": "maybe"}}, r"error_policy\.server\.fallback: has to be True or False"),
        (
            {"timeout": {"timeout_factor": 1}},
            r"error_policy\.timeout\.timeout_factor: has to be a number from 0\.05 to",
        ),
        (
            {"invalid_output": {"retries": 1}},
            r"error_policy\.invalid_output\.retries: is not known; invalid_output has",
        ),
        ({"auth": {"retries": 1}}, r"error_policy\.auth\.retries: is not known; auth has fallback"),
        ({"internal": {}}, r"error_policy\.internal: can't be set: errors of this kind follow the task's retries"),
        ({"input": {}}, r"error_policy\.input: can't be set: errors of this kind fail the task at once"),
        ({"wait_limit": -1}, r"error_policy\.wait_limit: has to be a number from 0 to"),
        ({"fallbacks": "gpt-4o"}, r"error_policy\.fallbacks: has to be a list of models, or a dict"),
        ({"fallbacks": {"gpt-4o": "x"}}, r"error_policy\.fallbacks\.gpt-4o: has to be a list of models"),
        ({"fallbacks": [7]}, r"error_policy\.fallbacks\[0\]: has to be a model's name or"),
        (
            {"fallbacks": [{"model": "a", "context_window": 0}]},
            r"error_policy\.fallbacks\[0\]\.context_window: has to be",
        ),
        ({"fallbacks": [" "]}, r"error_policy\.fallbacks\[0\]: has to name a model"),
        ({"fallbacks": ["m"] * 11}, r"error_policy\.fallbacks: has 11 models; 10 are the limit"),
    ],
)
def test_a_wrong_policy_names_the_field(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        parse_error_policy(given)


def test_a_policy_changes_only_what_it_names() -> None:
    policy = parse_error_policy({"rate_limit": {"retries": "8", "fallback": "true"}, "wait_limit": "90"})
    assert policy.rule("rate_limit") == Rule(retries=8, fallback=True)
    assert policy.rule("server") == DEFAULT_POLICY.rule("server")
    assert (policy.wait_limit, policy.reschedule_limit) == (90, 86_400)
    again = parse_error_policy({"rate_limit": {"backoff": 3}}, base=policy)
    assert again.rule("rate_limit") == Rule(retries=8, fallback=True, backoff=3)
    assert DEFAULT_POLICY.rule("rate_limit") == Rule(retries=5)


def test_chains() -> None:
    assert [entry.model for entry in DEFAULT_POLICY.chain("gpt-4.1")] == ["openai:gpt-4.1-mini", "openai:gpt-4.1-nano"]
    assert DEFAULT_POLICY.chain("ollama:llama3") == ()
    policy = parse_error_policy({"fallbacks": {"gpt-4.1": ["gpt-4o", {"model": "Ollama:x", "context_window": "4096"}]}})
    assert policy.chain("openai:gpt-4.1") == (FallbackModel("openai:gpt-4o"), FallbackModel("ollama:x", 4096))
    assert policy.chain("gpt-4o") == DEFAULT_POLICY.chain("gpt-4o")
    for_any = parse_error_policy({"fallbacks": ["gpt-4o"]}, base=policy)
    assert for_any.chain("openai:gpt-4.1") == for_any.chain("anthropic:x") == (FallbackModel("openai:gpt-4o"),)
    assert for_any.chain("gpt-4o") == ()  # not itself
    assert parse_error_policy({"fallbacks": []}).chain("gpt-4.1") == ()


def test_the_default_chains_lead_to_models_that_the_table_knows() -> None:
    from backend.models.prices import context_window

    for model, chain in DEFAULT_FALLBACKS.items():
        assert model not in chain
        assert all(context_window(name) for name in (model, *chain)), model


def test_the_first_model_that_holds_the_prompt_takes_over() -> None:
    assert pick_fallback([SMALL, LARGE], prompt_tokens=8_000, min_prompt_tokens=0, trim=True) == (SMALL, None)
    assert pick_fallback([], prompt_tokens=0, min_prompt_tokens=0, trim=True) is None


def test_settings_change_the_policy() -> None:
    settings = Settings(
        _env_file=None,
        error_rules={"server": {"retries": 1}, "fallbacks": {"gpt-4o": ["a"], "gpt-4.1": ["b"]}},
        model_fallbacks={"gpt-4o": ["openai:c"]},
        retry_wait_limit=5,
    )
    policy = settings.error_policy
    assert (policy.rule("server").retries, policy.wait_limit) == (1, 5)
    assert [policy.chain(model)[0].model for model in ("gpt-4o", "gpt-4.1")] == ["openai:c", "openai:b"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"error_rules": {"server": {"retries": "x"}}}, r"VISUAL_AI_ERROR_POLICY\.server\.retries: has to be"),
        ({"model_fallbacks": {"gpt-4o": [1]}}, r"VISUAL_AI_MODEL_FALLBACKS\.gpt-4o\[0\]: has to be"),
    ],
)
def test_wrong_settings_name_the_variable(given: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(_env_file=None, **given)


@pytest.mark.parametrize("variable", ["VISUAL_AI_ERROR_POLICY", "VISUAL_AI_MODEL_FALLBACKS"])
@pytest.mark.parametrize(("value", "message"), [("{", "this is not valid JSON"), ("[]", "valid dictionary")])
def test_a_variable_with_invalid_json_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError, match=rf"{variable}\n.*{message}"):
        Settings(_env_file=None)
    monkeypatch.setenv(variable, "{}")
    assert Settings(_env_file=None).error_policy == DEFAULT_POLICY
