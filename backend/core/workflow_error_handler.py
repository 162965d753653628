"""Errors: what kind one is, what is to be done about it, and the decision after each attempt.

The way in. Classification (`classify`), the policy table (`ErrorPolicy`, `parse_error_policy`) and the decision
(`decide`) are pure: they neither wait nor write, and import no provider's library. The model call and the graph's
runner carry decisions out.
"""

from backend.core.errors.category import CATEGORIES, FINAL, TRANSIENT, Category
from backend.core.errors.classify import Classified, classify, error_chain
from backend.core.errors.decision import (
    UNUSABLE,
    Action,
    Decision,
    Fail,
    Failure,
    FallBack,
    Repair,
    Reschedule,
    Retry,
    action_of,
    decide,
    decision_on,
    mark,
    reschedule_after,
    wait_of,
)
from backend.core.errors.facts import ErrorFacts, facts_of
from backend.core.errors.fallbacks import Fallback
from backend.core.errors.policy import DEFAULT_POLICY, ErrorPolicy, Rule, parse_error_policy
from backend.core.errors.retry_after import wait_asked_for

__all__ = [
    "CATEGORIES",
    "DEFAULT_POLICY",
    "FINAL",
    "TRANSIENT",
    "UNUSABLE",
    "Action",
    "Category",
    "Classified",
    "Decision",
    "ErrorFacts",
    "ErrorPolicy",
    "Fail",
    "Failure",
    "FallBack",
    "Fallback",
    "Repair",
    "Reschedule",
    "Retry",
    "Rule",
    "action_of",
    "classify",
    "decide",
    "decision_on",
    "error_chain",
    "facts_of",
    "mark",
    "parse_error_policy",
    "reschedule_after",
    "wait_asked_for",
    "wait_of",
]
