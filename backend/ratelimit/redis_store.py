"""The shared state of models' limits in Redis (or Valkey), for installations that have one."""

import json
from collections.abc import Awaitable, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar, cast

from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from backend.core.ratelimit.adaptive_rate import Pace
from backend.core.ratelimit.circuit_breaker import Circuit
from backend.core.ratelimit.state import KEPT_SECONDS, TOLERANCE_SECONDS, Change, Counts, LimitState, Reservation, Seen
from backend.ratelimit.stores import STORE_TIMEOUT, StoreUnavailableError

T = TypeVar("T")

# One hash tag: in a cluster all keys of a script are on one node.
INDEX = "{visual_ai:limits}"

_PRELUDE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local function number(name) return tonumber(redis.call('HGET', KEYS[1], name) or '0') end
local function put(name, value) redis.call('HSET', KEYS[1], name, string.format('%.17g', value)) end
local function count(first)
  for place, name in ipairs({'held_back', 'rate_limited', 'opened'}) do
    if ARGV[first + place] ~= '0' then redis.call('HINCRBY', KEYS[1], name, ARGV[first + place]) end
  end
end
local function answer(done)
  return {done, string.format('%.17g', now), redis.call('HGETALL', KEYS[1])}
end
"""

_READ = _PRELUDE + "return answer(0)"

# KEYS: the model's. ARGV: three counts.
_ADD = _PRELUDE + "if redis.call('EXISTS', KEYS[1]) == 1 then count(0) end return answer(0)"

# KEYS: the model's. ARGV: calls, within, paced, interval, token_seconds, token_debt, tolerance of both limits, three
# counts.
# The same as `first_time` and `MemoryStore.reserve`.
_RESERVE = (
    _PRELUDE
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return answer(0) end
count(8)
local calls, within, paced = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local interval, token_seconds = tonumber(ARGV[4]), tonumber(ARGV[5])
local tokens_due = number('next_tokens') + tonumber(ARGV[6])
local rate, first, turn = number('rate'), math.max(now, number('held_until')), 0
if (rate > 0) ~= paced then return answer(0) end
if paced then
  local counter = number('turn') + rate * math.max(0, now - number('turn_at'))
  turn = math.max(number('tail'), counter)
  first = math.max(first, number('turn_at') + (turn - (number('burst') - 1) - number('turn')) / rate)
end
if interval > 0 then first = math.max(first, number('next_request') - tonumber(ARGV[7])) end
if token_seconds > 0 then first = math.max(first, tokens_due - tonumber(ARGV[8])) end
if first > now + within then return answer(0) end
if paced then put('tail', turn + calls) end
if interval > 0 then put('next_request', math.max(number('next_request'), first) + calls * interval) end
if token_seconds > 0 then put('next_tokens', math.max(tokens_due, first) + token_seconds) end
redis.call('HINCRBY', KEYS[1], 'admitted', calls)
put('active_at', now)
return answer(1)
"""
)

# KEYS: the model's, the index. ARGV: the expected version ('' for none), the model, seconds to keep it, three counts,
# then names and values to set.
_SWAP = (
    _PRELUDE
    + """
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[1] then return answer(0) end
redis.call('HSET', KEYS[1], unpack(ARGV, 7))
redis.call('HINCRBY', KEYS[1], 'version', 1)
count(3)
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('SADD', KEYS[2], ARGV[2])
return answer(1)
"""
)


class RedisStore:
    """For all processes, in a hash for each model. Each call is a script: one round trip, carried out at once."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=STORE_TIMEOUT,
            socket_connect_timeout=STORE_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        scripts = (_READ, _ADD, _RESERVE, _SWAP)
        self._read, self._add, self._reserve, self._swap = map(self._redis.register_script, scripts)

    async def read(self, model: str) -> Seen:
        """The state."""
        return _seen(await _answer(self._read(keys=[_key(model)])))

    async def read_all(self) -> dict[str, Seen]:
        """All states by model."""
        models = await _answer(cast(Awaitable[set[str]], self._redis.smembers(INDEX)))
        found = {model: await self.read(model) for model in sorted(models)}
        return {model: seen for model, seen in found.items() if seen.state is not None}

    async def reserve(self, model: str, wanted: Reservation, counts: Counts) -> tuple[bool, Seen]:
        """Take turns, if there is still a pace (or none) as wanted and the first of them comes soon enough."""
        given = [
            wanted.calls,
            wanted.within,
            int(wanted.paced),
            wanted.interval,
            wanted.token_seconds,
            wanted.token_debt,
            wanted.tolerance,
            TOLERANCE_SECONDS,
            *_counted(counts),
        ]
        answer = await _answer(self._reserve(keys=[_key(model)], args=given))
        return bool(answer[0]), _seen(answer)

    async def swap(self, model: str, version: int | None, change: Change, counts: Counts) -> tuple[bool, Seen]:
        """Change pace and circuit, if `version` is still theirs (None: if there are none yet)."""
        pace = change.pace
        values: dict[str, Any] = {
            "pace": json.dumps(asdict(pace)),
            "circuit": json.dumps(asdict(change.circuit)),
            # What the scripts calculate with, besides.
            "rate": pace.rate or 0.0,
            "burst": pace.burst,
            "held_until": pace.held_until,
            "active_at": pace.active_at,
            "turn": change.turn,
            "turn_at": change.turn_at,
        }
        given = [
            "" if version is None else version,
            model,
            int(KEPT_SECONDS),
            *_counted(counts),
            *(part for item in values.items() for part in item),
        ]
        answer = await _answer(self._swap(keys=[_key(model), INDEX], args=given))
        return bool(answer[0]), _seen(answer)

    async def add(self, model: str, counts: Counts) -> Seen:
        """Count; gives the state."""
        return _seen(await _answer(self._add(keys=[_key(model)], args=_counted(counts))))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


async def _answer(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except (RedisError, OSError) as error:
        raise StoreUnavailableError(type(error).__name__) from error


def _key(model: str) -> str:
    return f"{INDEX}:{model}"


def _counted(counts: Counts) -> list[int]:
    return [counts.held_back, counts.rate_limited, counts.opened]


def _seen(answer: Sequence[Any]) -> Seen:
    _, now, flat = answer
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    if "version" not in fields:
        return Seen(None, float(now))

    def number(name: str) -> float:
        return float(fields.get(name, 0))

    circuit = json.loads(fields["circuit"])
    state = LimitState(
        replace(Pace(**json.loads(fields["pace"])), active_at=number("active_at")),
        Circuit(**{**circuit, "failed_by": tuple(circuit["failed_by"])}),
        version=int(fields["version"]),
        turn=number("turn"),
        turn_at=number("turn_at"),
        tail=number("tail"),
        admitted=int(fields.get("admitted", 0)),
        next_request=number("next_request"),
        next_tokens=number("next_tokens"),
        counts=Counts(int(number("held_back")), int(number("rate_limited")), int(number("opened"))),
    )
    return Seen(state, float(now))
