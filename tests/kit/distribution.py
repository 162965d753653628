"""How the tests are spread over processes: `pytest -n 2 --dist loadfile --no-loadscope-reorder`.

All end-to-end tests go to one process and share one stack; a second stack would cost more than it gains. They mostly
wait for that stack, so they start first, while the other process keeps the processor busy. Every other file goes to one
process as a whole, because its tests share fixtures. Folders with slow files come first, so that small files remain to
even out the end.

Groups (`--dist loadgroup`) would say the same, but pytest-xdist 3.8 marks them by an attribute that pytest 9.2 lacks.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

_STACK = "tests/e2e/"
_ORDER = (_STACK, "tests/integration/streaming/", "tests/integration/", "tests/unit/")


class _OneStack(LoadFileScheduling):  # type: ignore[misc]  # without types
    def _split_scope(self, nodeid: str) -> str:
        return _STACK if nodeid.startswith(_STACK) else str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Keep the end-to-end tests together."""
    return _OneStack(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in order."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    return next((place for place, folder in enumerate(_ORDER) if item.nodeid.startswith(folder)), len(_ORDER))
