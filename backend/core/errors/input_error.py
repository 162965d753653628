"""Errors that a run's own input causes, told apart by whether trying again could help."""


class InputError(ValueError):
    """The input can't be worked on as it is. A retry doesn't help: the sender has to change `field`.

    `str()` reads `"<field>: <message>"`; the message says what is wrong and what to do about it, and never
    holds a secret or an internal address.
    """

    field: str = "input_data"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        # `args` holds the message alone and the field lives in `__dict__`: this is what makes the error
        # survive pickling, which Airflow does when a task process hands its error on.
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
    """The input is somewhere else and could not be fetched just now. A retry may help.

    Not an `InputError`, which fails a task at once: nothing is known to be wrong with the input.
    `retry_after` is how many seconds the other side asked to wait, or None.
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
