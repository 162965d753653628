"""Errors that a run's own input causes. The two classes differ in whether a retry can help."""


class InputError(ValueError):
    """The input can't be processed as it is. A retry doesn't help: the sender has to change `field`.

    `str()` is `"<field>: <message>"`. The message says what is wrong and how to fix it, and never contains a secret or
    an internal address.
    """

    field: str = "input_data"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        # `args` holds only the message, and the field is in `__dict__`. So the error survives pickling, which Airflow
        # does when a task's process passes its error on.
        super().__init__(message)
        if field is not None:
            self.field = field

    @property
    def message(self) -> str:
        """What is wrong, without the field's name."""
        return str(self.args[0])

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class InputUnavailableError(ConnectionError):
    """The input is stored elsewhere and could not be fetched at the moment. A retry may help.

    This is not an `InputError`, which would fail the task at once: nothing is known to be wrong with the input.
    `retry_after` is how many seconds the server asked to wait, or None.
    """

    field: str = "input_data"

    def __init__(self, message: str, *, field: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        if field is not None:
            self.field = field

    @property
    def message(self) -> str:
        """What went wrong, without the field's name."""
        return str(self.args[0])

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"
