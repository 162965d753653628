"""The run on whose behalf this code works: it may read its user's uploads, and no others."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UploadReader:
    """A run that was started for and by these users.

    One without users, such as a scheduled one, may read all uploads: its DAG's author wrote down what it reads.
    `shared` are the ids of uploads that it may read besides.
    """

    users: frozenset[str]
    unattended: bool = False
    shared: frozenset[str] = frozenset()

    def may_read(self, image_id: str, owner: str) -> bool:
        """Whether the run may read this upload of `owner`."""
        return owner in self.users or image_id in self.shared or (self.unattended and not self.users)


upload_reader: ContextVar[UploadReader | None] = ContextVar("visual_ai_upload_reader", default=None)
"""Agents of the same kind share their graphs, so the run is part of the context in which a graph works."""
