"""Errors of an agent's own work, as opposed to errors that a model's provider reports."""


class InvalidOutputError(ValueError):
    """The model's answer does not have the required form, even after the model was told what is wrong with it.

    A retry of the task doesn't help: the schema, the prompt or the model has to change.
    """


class UnstorableOutputError(InvalidOutputError):
    """A node returned something that no checkpoint, row or XCom can hold. What was paid for before it is kept.

    The message names the value's place, the node and what to return instead. A retry of the task doesn't help: it would
    get to the same value again.
    """


class AnswerRefusedError(InvalidOutputError):
    """The model declined to answer. It isn't asked again, because it would decline again."""


class AnswerFilteredError(ValueError):
    """The provider's content filter ended the answer. A retry doesn't help: the prompt has to change."""


class AnswerBrokenOffError(ConnectionError):
    """The answer is incomplete although the connection was closed cleanly. A retry helps."""


class StepLimitError(RuntimeError):
    """A supervisor wants to continue after it has used up its steps. A retry of the task doesn't help."""
