"""How an agent's own work can fail, whatever its model's provider says. The same request would fail again."""


class InvalidOutputError(ValueError):
    """The model's answer does not have the form that was asked for, not even after it was told what is wrong.

    A retry of the task doesn't help: the schema, the prompt or the model has to change.
    """


class StepLimitError(RuntimeError):
    """A supervisor wants to go on after its steps were used up. A retry of the task doesn't help."""
