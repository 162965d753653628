"""The operators' argument `questions`: what it accepts, and what it refuses when the DAG is parsed."""

from datetime import timedelta
from typing import Any

import pytest

from backend.core.asking.terms import QuestionTerms, parse_terms
from backend.core.errors.input_error import InputError
from tests.kit.documents.snippets import snippet
from visual_ai_operators import LangGraphOperator, MultiAgentOperator


def test_the_documented_operator_is_accepted() -> None:
    found: dict[str, Any] = {"LangGraphOperator": LangGraphOperator}
    exec(f"made = {snippet('questions')}", found)  # noqa: S102  # the documentation's
    assert found["made"].questions == {
        "timeout": 86_400, "on_timeout": "escalate", "escalate_to": ["lead"], "assignees": ["ann", "ben"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "terms"),
    [
        (None, QuestionTerms()),
        ({}, QuestionTerms()),
        ({"timeout": timedelta(minutes=1)}, QuestionTerms(timeout=60.0)),
        ({"timeout": 5, "on_timeout": "default", "default": None}, QuestionTerms(5.0, "default", None)),
        ({"assignees": [" ann "], "four_eyes": True}, QuestionTerms(assignees=("ann",), four_eyes=True)),
    ],
)
def test_terms(given: Any, terms: QuestionTerms) -> None:
    assert parse_terms(given) == terms


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("soon", "questions: has to be a dict"),
        ({"timout": 5}, "questions.timout: is not known; allowed are timeout, on_timeout"),
        ({"timeout": 0}, "questions.timeout: has to be a number of seconds from 1"),
        ({"timeout": True}, "questions.timeout: has to be a number of seconds from 1"),
        ({"timeout": 5, "on_timeout": "wait"}, "questions.on_timeout: has to be one of fail, default, escalate"),
        ({"on_timeout": "default", "default": 1}, "questions.timeout: is missing"),
        ({"timeout": 5, "on_timeout": "default"}, "questions.default: belongs to on_timeout='default'"),
        ({"timeout": 5, "default": 1}, "questions.default: belongs to on_timeout='default'"),
        ({"timeout": 5, "on_timeout": "escalate"}, "questions.escalate_to: belongs to on_timeout='escalate'"),
        ({"assignees": "ann"}, "questions.assignees: has to be a list"),
        ({"assignees": [""]}, "questions.assignees: has to be a list of users' names"),
        ({"four_eyes": "yes"}, "questions.four_eyes: has to be True or False"),
    ],
)
@pytest.mark.parametrize("operator", [LangGraphOperator, MultiAgentOperator])
def test_wrong_terms_fail_when_the_dag_is_parsed(operator: type[Any], given: Any, message: str) -> None:
    own = {"agents": [{"name": "a", "type": "text", "input_data": {"text": "x"}}]}
    if operator is LangGraphOperator:
        own = {"agent_config": {"type": "text"}, "input_data": {"text": "x"}}  # type: ignore[dict-item]
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        operator(task_id="t", questions=given, **own)
