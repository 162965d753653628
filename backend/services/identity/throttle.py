"""Slows down guessing of passwords, across all processes.

Attempts are counted in PostgreSQL before Airflow is asked, so that attempts made at the same time count, too, and taken
back when the password was right. There are three counters, each with a growing wait:

* of an account from one address, the strictest;
* of an account from anywhere, whose wait stays short: whoever guesses must not lock its owner out;
* of an address for any account.

An address from which the account was signed in to within the last 30 days meets only the first.
"""

import logging
from dataclasses import dataclass

from sqlalchemy import Connection

from backend.core.problems import TooManyRequests
from backend.db.engine import Database
from backend.db.identity import attempts
from backend.db.identity.attempts import Key

log = logging.getLogger(__name__)

QUIET = 1800.0
"""Seconds without an attempt after which a counter starts again."""

_ANY = ""
_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True)
class Rule:
    """After `free` failures the wait is one second, then doubles, up to `longest` seconds."""

    free: int
    longest: float

    def wait(self, failures: int) -> float:
        """Seconds to wait after so many failures."""
        excess = failures - self.free
        return 0.0 if excess < 0 else min(2.0 ** min(excess, 30), self.longest)


PAIR = Rule(free=5, longest=900.0)
ACCOUNT = Rule(free=20, longest=30.0)
ADDRESS = Rule(free=30, longest=60.0)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that was counted."""

    pair: Key
    counted: tuple[Key, ...]


class SignInThrottle:
    """Counts attempts to sign in."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, username: str, address: str) -> Attempt:
        """Count an attempt as failed until it turns out otherwise.

        Raises `TooManyRequests` with the seconds after which to try again; then it doesn't count.
        """
        account = username.strip().casefold().replace("\x00", "")[:_LONGEST_NAME]
        pair = (account, address)
        return await self._begin(pair, {pair: PAIR, (account, _ANY): ACCOUNT, (_ANY, address): ADDRESS})

    async def begin_anonymous(self, address: str) -> Attempt:
        """The same for an attempt that names no account; `take_back` it when it succeeds."""
        key = (_ANY, address)
        return await self._begin(key, {key: ADDRESS})

    async def _begin(self, pair: Key, rules: dict[Key, Rule]) -> Attempt:
        def count(connection: Connection) -> tuple[float, Attempt]:
            counters = attempts.lock(connection, list(rules))
            applying = {pair: rules[pair]} if counters[pair]["known"] else rules
            wait = max(float(counters[key]["blocked_for"] or 0.0) for key in applying)
            if wait <= 0:
                for key, rule in applying.items():
                    quiet = float(counters[key]["quiet"])
                    failures = 1 + (counters[key]["failures"] if quiet < QUIET else 0)
                    attempts.count(connection, key, failures, rule.wait(failures))
            return wait, Attempt(pair, tuple(applying))

        wait, attempt = await self._database.run(count)
        if wait > 0:
            log.warning("refused an attempt to sign in as %r from %s: too many have failed", *pair)
            raise TooManyRequests("Too many attempts to sign in have failed; try again later.", retry_after=wait)
        return attempt

    async def succeeded(self, attempt: Attempt) -> None:
        """The password was right."""

        def record(connection: Connection) -> None:
            attempts.lock(connection, list(attempt.counted))  # in the same order as other attempts
            attempts.take_back(connection, [key for key in attempt.counted if key != attempt.pair])
            attempts.succeed(connection, attempt.pair)

        await self._database.run(record)

    async def take_back(self, attempt: Attempt) -> None:
        """The password was not checked."""

        def record(connection: Connection) -> None:
            attempts.lock(connection, list(attempt.counted))
            attempts.take_back(connection, list(attempt.counted))

        await self._database.run(record)
