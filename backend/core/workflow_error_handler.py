"""The way into error handling: what an error is, what the policy says about it, and the decision after each attempt.

Three questions, each with its own function, all of them pure:

* What happened? `classify` looks through an exception and its causes and returns one of the `CATEGORIES`. It recognises
  providers' exceptions without importing their libraries (`core/errors/recognition.py`, `core/errors/facts.py`).
* What is allowed? An `ErrorPolicy` has a rule for each category: retries, backoff, fallback models, repairs.
  `parse_error_policy` reads one from settings and operator arguments.
* What follows? `decide` combines the two with what the failed attempt had to say (`FailureSignals`).

The model call (`models/call.py`) and the graph's retry (`runtime/graphs/retry.py`) carry decisions out. When they give
up they raise an `AgentFailure`, which takes error and decision to Airflow (`core/errors/failure.py`).
"""

from backend.core.errors.category import CATEGORIES, FINAL, TRANSIENT, Category, Classified
from backend.core.errors.classify import as_failure, classify, error_chain
from backend.core.errors.decision import (
    Action,
    Decision,
    Fail,
    FailureSignals,
    Repair,
    Reschedule,
    Retry,
    SwitchModel,
    action_of,
    decide,
    wait_of,
)
from backend.core.errors.facts import ErrorFacts, facts_of
from backend.core.errors.failure import AgentFailure, FailedAttempt
from backend.core.errors.fallbacks import FallbackModel
from backend.core.errors.policy import DEFAULT_POLICY, ErrorPolicy, Rule, parse_error_policy
from backend.core.errors.retry_after import wait_asked_for

__all__ = [
    "CATEGORIES",
    "DEFAULT_POLICY",
    "FINAL",
    "TRANSIENT",
    "Action",
    "AgentFailure",
    "Category",
    "Classified",
    "Decision",
    "ErrorFacts",
    "ErrorPolicy",
    "Fail",
    "FailedAttempt",
    "FailureSignals",
    "FallbackModel",
    "Repair",
    "Reschedule",
    "Retry",
    "Rule",
    "SwitchModel",
    "action_of",
    "as_failure",
    "classify",
    "decide",
    "error_chain",
    "facts_of",
    "parse_error_policy",
    "wait_asked_for",
    "wait_of",
]
