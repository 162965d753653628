"""How the tests are spread over processes: `pytest -n 2 --dist loadgroup --no-loadscope-reorder`.

All end-to-end tests form one group, so they run in one process and share one stack; a second stack would cost more
than it gains. They mostly wait for that stack, so they start first, while the other process keeps the processor busy.
Every other file is a group of its own, because its tests share fixtures. Folders with slow files come first, so that
small files remain to even out the end.
"""

from __future__ import annotations

import pytest

_STACK = "tests/e2e/"
_ORDER = (_STACK, "tests/integration/streaming/", "tests/integration/", "tests/unit/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Assign the groups, and put the tests in order."""
    for item in items:
        group = "stack" if item.nodeid.startswith(_STACK) else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    return next((place for place, folder in enumerate(_ORDER) if item.nodeid.startswith(folder)), len(_ORDER))
