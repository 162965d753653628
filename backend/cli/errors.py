"""Exit codes, and the errors that end a command.

CliError                  the command line is invalid; exit code 2
├── Refused               the backend responded with 4xx; exit code 2; a retry doesn't help
├── SignInNeeded          there is no token, or it is no longer valid; exit code 4
└── Unreachable           no response, or 429 or 5xx; exit code 4; a retry may help
"""

from collections.abc import Sequence

SUCCESS = 0
RUN_FAILED = 1
USAGE = 2
RUN_CANCELLED = 3
NO_RESPONSE = 4
INTERRUPTED = 130

EXIT_CODES = {"success": SUCCESS, "failed": RUN_FAILED, "cancelled": RUN_CANCELLED}
"""Exit codes of commands that watch a run, by the state in which the run ended."""


class CliError(Exception):
    """The command can't be carried out. The message says why, and is meant for the user at the terminal.

    `faults` are pairs of an invalid field and what is wrong with it. Notes (`add_note`) say what to do next.
    """

    exit_code = USAGE

    def __init__(self, message: str, faults: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.faults = tuple(faults)


class Refused(CliError):
    """The backend refused the request; `status` is the HTTP status."""

    def __init__(self, message: str, status: int, faults: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message, faults)
        self.status = status


class SignInNeeded(CliError):
    """The user has to sign in; `username` is the account that was signed in before."""

    exit_code = NO_RESPONSE

    def __init__(self, message: str, username: str | None = None) -> None:
        super().__init__(message)
        self.username = username


class Unreachable(CliError):
    """The backend is unreachable or unavailable; `retry_after` is the wait that it asks for, in seconds."""

    exit_code = NO_RESPONSE

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
