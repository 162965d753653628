"""Keeps the shared state of rate limits in Redis (or Valkey), for installations that have one."""

import json
from collections.abc import Awaitable
from typing import TypeVar, cast

from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from backend.core.ratelimit.state import KEPT_SECONDS, LimitState, Snapshot
from backend.ratelimit.stores import STORE_TIMEOUT, StoreUnavailableError

T = TypeVar("T")

# The braces are a hash tag: in a cluster, all keys of the script are on one node.
INDEX = "{visual_ai:rate_limits}"

# KEYS: the model's key, the index. ARGV: the expected version ('' for none), the new state ('' to read only), the
# model, seconds to keep it. Returns whether the state was replaced, the time, the version and the state ('' for none).
_SWAP = """
local time = redis.call('TIME')
local version = redis.call('HGET', KEYS[1], 'version') or ''
local swapped = 0
if ARGV[2] ~= '' and version == ARGV[1] then
  redis.call('HSET', KEYS[1], 'state', ARGV[2])
  version = redis.call('HINCRBY', KEYS[1], 'version', 1)
  redis.call('EXPIRE', KEYS[1], ARGV[4])
  redis.call('SADD', KEYS[2], ARGV[3])
  swapped = 1
end
local now = time[1] .. '.' .. string.format('%06d', time[2])
return {swapped, now, tostring(version), redis.call('HGET', KEYS[1], 'state') or ''}
"""


class RedisStore:
    """One hash per model. Each operation is a script, which Redis runs atomically in one round trip."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=STORE_TIMEOUT,
            socket_connect_timeout=STORE_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        self._script = self._redis.register_script(_SWAP)

    async def read(self, model: str) -> Snapshot:
        """See `LimitStore.read`."""
        _, snapshot = await self._run(model, None, "")
        return snapshot

    async def read_all(self) -> dict[str, Snapshot]:
        """See `LimitStore.read_all`; without models that nobody has called for a month."""
        models = await _answer(cast(Awaitable[set[str]], self._redis.smembers(INDEX)))
        found = {model: await self.read(model) for model in sorted(models)}
        return {model: snapshot for model, snapshot in found.items() if snapshot.state is not None}

    async def swap(self, model: str, version: int | None, state: LimitState) -> tuple[bool, Snapshot]:
        """See `LimitStore.swap`."""
        return await self._run(model, version, json.dumps(state.as_json()))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _run(self, model: str, version: int | None, state: str) -> tuple[bool, Snapshot]:
        arguments = ["" if version is None else version, state, model, int(KEPT_SECONDS)]
        swapped, now, stored_version, stored = await _answer(
            self._script(keys=[f"{INDEX}:{model}", INDEX], args=arguments)
        )
        if not stored:
            return bool(swapped), Snapshot(None, None, float(now))
        return bool(swapped), Snapshot(LimitState.from_json(json.loads(stored)), int(stored_version), float(now))


async def _answer(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except (RedisError, OSError) as error:
        raise StoreUnavailableError(type(error).__name__) from error
