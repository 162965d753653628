"""How commands end.

CliError                  the command line is wrong; exit code 2
├── Refused               the backend answered 4xx; exit code 2; a retry doesn't help
├── SignInNeeded          no token, or it is no longer good; exit code 4
└── Unreachable           no answer, or none that helps (429, 5xx); exit code 4; a retry may help
"""

from collections.abc import Sequence

SUCCESS = 0
RUN_FAILED = 1
WRONG = 2
RUN_CANCELLED = 3
NO_ANSWER = 4
INTERRUPTED = 130

EXIT_CODES = {"success": SUCCESS, "failed": RUN_FAILED, "cancelled": RUN_CANCELLED}
"""What a command that followed a run exits with, by the state in which the run ended."""


class CliError(Exception):
    """The command can't be carried out; says why in words for the person at the terminal.

    `faults` are the fields that are wrong, each with what is wrong with it; `advice` is what to do next.
    """

    exit_code = WRONG
    advice = ""

    def __init__(self, message: str, faults: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.faults = tuple(faults)


class Refused(CliError):
    """The backend refuses the request; `status` is the HTTP status."""

    def __init__(self, message: str, status: int, faults: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message, faults)
        self.status = status


class SignInNeeded(CliError):
    """Somebody has to sign in; `username` is who was signed in before."""

    exit_code = NO_ANSWER

    def __init__(self, message: str, username: str | None = None) -> None:
        super().__init__(message)
        self.username = username


class Unreachable(CliError):
    """The backend is out of reach or can't help now; `retry_after`, in seconds, is its own word on when it can."""

    exit_code = NO_ANSWER

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
