"""Errors of an agent's own work, as opposed to errors that a model's provider reports."""

from collections.abc import Mapping
from typing import Any, Final, Literal

Remedy = Literal["more_tokens", "again", "no_tools", "none"]
"""What may help against an incomplete answer: a higher token limit, the same request once more, the same with the
remark that there are no tools, or nothing."""


class InvalidOutputError(ValueError):
    """The model's answer is incomplete or doesn't have the required form, also after another attempt at it.

    A retry of the task doesn't help: the schema, the prompt or the model has to change.
    """


class UnstorableOutputError(InvalidOutputError):
    """A node returned something that no checkpoint, row or XCom can hold. What was paid for before it is kept.

    The message names the value's place, the node and what to return instead. A retry of the task doesn't help: it would
    get to the same value again.
    """


class IncompleteAnswerError(InvalidOutputError):
    """The model stopped before its answer was complete, or gave none.

    :param known: what is known of the answer, as JSON, for the error's record.
    :param remedy: what may help at the next attempt.
    :param acceptable: whether the answer may be accepted where that is asked for.
    """

    def __init__(
        self,
        message: str,
        *,
        known: Mapping[str, Any] | None = None,
        remedy: Remedy = "none",
        acceptable: bool = True,
    ) -> None:
        super().__init__(message)
        self.known: Final = dict(known or {})
        self.remedy: Final[Remedy] = remedy
        self.acceptable: Final = acceptable


class AnswerRefusedError(IncompleteAnswerError):
    """The model declined to answer. It isn't asked again, because it would decline again."""


class AnswerFilteredError(ValueError):
    """The provider's content filter ended the answer. A retry doesn't help: the prompt has to change."""


class AnswerBrokenOffError(ConnectionError):
    """The answer is incomplete although the connection was closed cleanly. A retry helps."""


class ConversationBusyError(RuntimeError):
    """An earlier turn of the conversation is still under way. A retry helps, once it is over."""


class StepLimitError(RuntimeError):
    """A supervisor wants to continue after it has used up its steps. A retry of the task doesn't help."""


class ReportedError(Exception):
    """An error that another process has reported: its subclasses have the names of the classes there.

    `text` is its message, and `frames` the module and function of each frame, from the outermost to the innermost.
    """

    text = ""
    frames: tuple[tuple[str, str], ...] = ()
    response: Any = None

    def __str__(self) -> str:
        return self.text or super().__str__()
