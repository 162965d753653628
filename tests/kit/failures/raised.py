"""Expects an agent's failure, by the error that caused it."""

import pytest

from backend.core.workflow_error_handler import AgentFailure


def raises_failure(kind: type[Exception], match: str | None = None) -> pytest.RaisesExc[AgentFailure]:
    """`pytest.raises` for an `AgentFailure` whose original error is of that kind."""
    return pytest.raises(AgentFailure, match=match, check=lambda failure: isinstance(failure.error, kind))
