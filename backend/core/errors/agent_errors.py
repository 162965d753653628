"""How an agent's own work can fail, whatever its model's provider says."""


class InvalidOutputError(ValueError):
    """The model's answer does not have the form that was asked for, not even after it was told what is wrong.

    A retry of the task doesn't help: the schema, the prompt or the model has to change.
    """


class AnswerRefusedError(InvalidOutputError):
    """The model declined to answer. It is not asked again: it would decline again."""


class AnswerFilteredError(ValueError):
    """The provider's content filter ended the answer. A retry doesn't help: the prompt has to change."""


class AnswerBrokenOffError(ConnectionError):
    """The answer ended in the middle although the connection was closed in order. A retry helps."""


class StepLimitError(RuntimeError):
    """A supervisor wants to go on after its steps were used up. A retry of the task doesn't help."""
