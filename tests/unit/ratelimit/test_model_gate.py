"""The rate limiter in virtual time: callers in several processes, and a provider that limits them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from backend.core.ratelimit.configured import ModelLimit
from backend.core.ratelimit.interface import CircuitOpenError, HeldBackError, ModelGate, OpenGate
from backend.core.ratelimit.state import LimitState
from backend.ratelimit.limiter import SharedGate
from backend.ratelimit.stores import FallbackStore, LimitStore, MemoryStore, StoreUnavailableError
from tests.kit.servers.limited_provider import MODEL, LimitedProvider, ask, ask_again, now
from tests.kit.virtual_time import run_virtually

TRIP = 0.002


class Store:
    """A store that all gates of a test share, one round trip away, and that can be made to fail."""

    def __init__(self) -> None:
        self.kept = MemoryStore(now)
        self.trips = 0
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self.kept, name)

        async def call(*args: Any) -> Any:
            self.trips += 1
            await asyncio.sleep(TRIP / 2)
            if self.error is not None:
                raise self.error
            result = await method(*args)
            await asyncio.sleep(TRIP / 2)
            return result

        return call

    def gates(self, number: int, **limit: float) -> list[SharedGate]:
        """One gate per process."""
        limits = {"gpt-4.1": ModelLimit(**limit)} if limit else {}
        store: LimitStore = self
        return [SharedGate(store, limits) for _ in range(number)]

    async def state(self) -> LimitState:
        state = (await self.kept.read(MODEL)).state
        assert state is not None
        return state


async def all_ask(
    gates: list[SharedGate] | list[OpenGate], provider: LimitedProvider, callers: int, each: int = 1
) -> None:
    """Let agents in several processes call at once, each of them `each` times."""

    async def agent(gate: ModelGate) -> None:
        for _ in range(each):
            await ask_again(gate, provider)

    await asyncio.gather(*(agent(gates[number % len(gates)]) for number in range(callers)))


@pytest.mark.parametrize("refusal_latency", [0.005, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("processes", [1, 4, 16, 200])
def test_two_hundred_agents_waste_little(processes: int, refusal_latency: float) -> None:
    async def run() -> None:
        provider = LimitedProvider(20.0, refusal_latency=refusal_latency)
        began = now()
        await all_ask(Store().gates(processes), provider, 200)
        assert len(provider.answered) == 200
        # The longer a 429 takes, the more calls are in flight by then.
        assert provider.waste <= (0.1 if refusal_latency <= 0.1 else 0.15), f"{len(provider.refused)} were refused"
        # 20 at once, then 20 per second: the last one can be answered after 9 s at best.
        assert now() - began < 15

    run_virtually(run())


def test_without_the_gate_most_calls_are_wasted() -> None:
    async def run() -> None:
        provider = LimitedProvider(20.0)
        await all_ask([OpenGate()], provider, 200)
        assert provider.waste > 0.5

    run_virtually(run())


@pytest.mark.parametrize(
    ("rate", "burst", "callers", "each"),
    [
        (1.0, 1, 30, 10),
        (5.0, 5, 50, 10),
        (20.0, 1, 50, 10),
        (20.0, 20, 50, 40),
        (100.0, 100, 500, 4),
        (500.0, 500, 1000, 10),
    ],
)
@pytest.mark.parametrize("says_when", [True, False])
def test_the_allowed_rate_is_learned(rate: float, burst: int, callers: int, each: int, says_when: bool) -> None:
    async def run() -> None:
        provider = LimitedProvider(rate, burst, says_when=says_when)
        began = now()
        await all_ask(Store().gates(4), provider, callers, each)
        assert len(provider.answered) == callers * each
        assert provider.waste <= 0.1, f"{len(provider.refused)} of {callers * each} were refused"
        # A provider without a burst also refuses calls that arrive a few milliseconds too close to each other.
        assert now() - began < (1.5 if burst > 1 else 1.9) * (callers * each / rate) + 5

    run_virtually(run())


def test_the_rate_follows_a_limit_that_falls_and_rises() -> None:
    async def run() -> None:
        provider = LimitedProvider(50.0)
        gates = Store().gates(4)
        agents = asyncio.create_task(all_ask(gates, provider, 100, 40))
        await asyncio.sleep(20)
        provider._bucket.rate = 10.0
        await asyncio.sleep(30)
        fallen = [moment for moment in provider.answered if moment > now() - 20]
        provider._bucket.rate = 50.0
        await asyncio.sleep(40)
        risen = [moment for moment in provider.answered if moment > now() - 10]
        await agents
        assert len(fallen) / 20 == pytest.approx(10, rel=0.2)
        assert len(risen) / 10 == pytest.approx(50, rel=0.3)
        assert provider.waste < 0.1

    run_virtually(run())


def test_nobody_calls_during_a_retry_after_and_then_calls_are_paced() -> None:
    async def run() -> None:
        gates = Store().gates(4)
        provider = LimitedProvider(1000.0)
        await ask(gates[0], provider)
        await gates[0].admit(MODEL, tokens=1, max_wait=1)
        await gates[0].report(MODEL, "rate_limited", retry_after=30)
        began, provider.answered = now(), []
        await all_ask(gates, provider, 100)
        after = [moment - began for moment in provider.answered]
        assert min(after) >= 30 - 0.1
        assert sum(moment < 30.5 for moment in after) <= 0.5 * 200, "all calls came at once"
        assert sum(moment < 30.1 for moment in after) <= 10

    run_virtually(run())


def test_a_429_without_retry_after_pauses_calls_for_a_second() -> None:
    async def run() -> None:
        first, second = Store().gates(2)
        await first.admit(MODEL, tokens=1, max_wait=1)
        await first.report(MODEL, "rate_limited")
        began = now()
        await second.admit(MODEL, tokens=1, max_wait=10)
        assert now() - began == pytest.approx(1.0, abs=0.1)

    run_virtually(run())


def test_429s_of_calls_in_flight_cut_the_rate_once() -> None:
    async def run() -> None:
        store = Store()
        (gate,) = store.gates(1)
        await asyncio.gather(*(gate.admit(MODEL, tokens=1, max_wait=60) for _ in range(50)))
        before = await store.state()

        async def told(gate: SharedGate) -> None:
            await gate.admit(MODEL, tokens=1, max_wait=60)
            await asyncio.sleep(1)
            await gate.report(MODEL, "rate_limited", retry_after=1)

        await asyncio.gather(*(told(gate) for _ in range(50)))
        after = await store.state()
        assert after.epoch == before.epoch + 1
        await gate.close()
        assert (await store.state()).counts.rate_limited == 50

    run_virtually(run())


def test_a_call_that_can_not_wait_is_rejected_at_once() -> None:
    async def run() -> None:
        first, second = Store().gates(2)
        await first.admit(MODEL, tokens=1, max_wait=0)
        await first.report(MODEL, "rate_limited", retry_after=600)
        began = now()
        for gate in (first, second):
            with pytest.raises(HeldBackError) as held:
                await gate.admit(MODEL, tokens=1, max_wait=60)
            assert held.value.retry_after == pytest.approx(600, abs=1)
        assert now() - began < 1
        await asyncio.sleep(600)
        await second.admit(MODEL, tokens=1, max_wait=1)

    run_virtually(run())


def test_a_waiting_call_is_rejected_once_its_wait_gets_too_long() -> None:
    async def run() -> None:
        first, second = Store().gates(2)
        for gate in (first, second):
            await gate.admit(MODEL, tokens=1, max_wait=0)
        await first.report(MODEL, "rate_limited", retry_after=20)
        waiting = asyncio.create_task(second.admit(MODEL, tokens=1, max_wait=60))
        await asyncio.sleep(5)
        await first.report(MODEL, "rate_limited", retry_after=600)
        began = now()
        with pytest.raises(HeldBackError):
            await waiting
        assert now() - began < 2

    run_virtually(run())


def test_calls_are_admitted_in_order_of_arrival() -> None:
    async def run() -> None:
        (gate,) = Store().gates(1)
        order = []

        async def come(number: int) -> None:
            await gate.admit(MODEL, tokens=1, max_wait=600)
            order.append(number)
            if number == 10:
                await gate.report(MODEL, "rate_limited", retry_after=5)

        await asyncio.gather(*map(come, range(60)))
        assert order == list(range(60))

    run_virtually(run())


def test_a_cancelled_call_delays_nobody() -> None:
    async def run() -> None:
        (gate,) = Store().gates(1)
        await gate.admit(MODEL, tokens=1, max_wait=0)
        await gate.report(MODEL, "rate_limited", retry_after=10)
        waiting = [asyncio.create_task(gate.admit(MODEL, tokens=1, max_wait=60)) for _ in range(30)]
        await asyncio.sleep(1)
        for task in waiting[:-1]:
            task.cancel()
        began = now()
        await waiting[-1]
        assert now() - began < 10

    run_virtually(run())


def test_without_a_limit_the_store_is_read_once_a_second() -> None:
    async def run() -> None:
        store = Store()
        (gate,) = store.gates(1)
        provider = LimitedProvider(10_000.0, latency=0.1)
        await ask(gate, provider)
        await asyncio.sleep(3)
        await ask(gate, provider)  # the ramp has ended
        store.trips, began = 0, now()

        async def agent() -> None:
            for _ in range(1000):
                await ask(gate, provider)

        await asyncio.gather(*(agent() for _ in range(10)))
        assert len(provider.answered) == 10_002
        assert store.trips <= 1.2 * (now() - began) + 2

    run_virtually(run())


@pytest.mark.parametrize("processes", [1, 8])
def test_without_a_limit_five_hundred_calls_start_within_seconds(processes: int) -> None:
    async def run() -> None:
        provider = LimitedProvider(100_000.0, latency=2.0)
        gates = Store().gates(processes)
        for limit in (3.0, 3.0, 1.0):
            began, provider.answered = now(), []
            await all_ask(gates, provider, 500)
            assert max(provider.answered) - began < limit
            await asyncio.sleep(5)

    run_virtually(run())


def test_a_rush_after_light_use_wastes_little() -> None:
    async def run() -> None:
        gates = Store().gates(2)
        provider = LimitedProvider(50.0)
        for _ in range(20):  # calls now and then: nothing limits them
            await ask(gates[0], provider)
            await asyncio.sleep(1)
        await all_ask(gates, provider, 400)
        assert provider.waste <= 0.15

    run_virtually(run())


def test_a_configured_limit_of_requests_is_kept() -> None:
    async def run() -> None:
        provider = LimitedProvider(1000.0)
        began = now()
        await all_ask(Store().gates(3, requests_per_minute=120), provider, 60)
        times = sorted(moment - began for moment in provider.answered)
        assert times[-1] == pytest.approx(29, abs=1.5)
        for second in range(30):
            assert sum(second <= moment < second + 1 for moment in times) <= 3

    run_virtually(run())


def test_a_configured_limit_of_tokens_is_kept() -> None:
    async def run() -> None:
        (gate,) = Store().gates(1, tokens_per_minute=6000)
        began = now()
        for _ in range(4):
            await gate.admit(MODEL, tokens=500, max_wait=60)
            # The answer was long, too: what was used beyond the estimate is owed by the next call.
            await gate.report(MODEL, "ok", tokens=1000)
        # 3,000 tokens at 100 a second, one second's worth of them at once.
        assert now() - began == pytest.approx(30 - 1, abs=1)
        with pytest.raises(HeldBackError) as held:
            await gate.admit(MODEL, tokens=500, max_wait=3)
        assert held.value.retry_after == pytest.approx(10, abs=1)

    run_virtually(run())


def test_tokens_of_a_failed_call_are_refunded() -> None:
    async def run() -> None:
        (gate,) = Store().gates(1, tokens_per_minute=6000)
        began = now()
        for _ in range(5):
            await gate.admit(MODEL, tokens=10_000, max_wait=200)
            await gate.report(MODEL, "other")
        assert now() - began < 1

    run_virtually(run())


def test_models_of_this_machine_are_not_limited() -> None:
    async def run() -> None:
        store = Store()
        (gate,) = store.gates(1)
        for _ in range(100):
            await gate.admit("local:text@0", tokens=1, max_wait=0)
            await gate.report("local:text@0", "ok")
        assert store.trips == 0

    run_virtually(run())


def test_a_lost_state_is_learned_again(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        store = Store()
        provider = LimitedProvider(20.0)
        agents = asyncio.create_task(all_ask(store.gates(4), provider, 200))
        for _ in range(3):
            await asyncio.sleep(2)
            store.kept._states.clear()  # as after a crash of the database
        await agents
        assert len(provider.answered) == 200
        assert provider.waste < 0.3

    run_virtually(run())
    assert "failed" not in caplog.text


async def fail(gate: ModelGate, times: int = 1, **report: Any) -> None:
    """One caller finds the provider down, `times` times."""
    for _ in range(times):
        await gate.admit(MODEL, tokens=1, max_wait=60)
        await gate.report(MODEL, "down", **report)


async def agents_fail(gates: list[SharedGate], number: int, **report: Any) -> None:
    for index in range(number):
        await asyncio.create_task(fail(gates[index % len(gates)], **report))


def test_nobody_calls_a_provider_that_is_down() -> None:
    async def run() -> None:
        gates = Store().gates(3)
        await agents_fail(gates, 5)
        for gate in gates:
            with pytest.raises(CircuitOpenError) as refused:
                await gate.admit(MODEL, tokens=1, max_wait=60)
            assert refused.value.retry_after == pytest.approx(10, abs=1.5)

    run_virtually(run())


@pytest.mark.parametrize("spoiled_by", ["one caller alone", "an answer", "a bad request", "long ago"])
def test_only_failures_of_several_callers_in_a_row_open_the_circuit(spoiled_by: str) -> None:
    async def run() -> None:
        gates = Store().gates(2)
        if spoiled_by == "one caller alone":
            await asyncio.create_task(fail(gates[0], 9))
        else:
            await agents_fail(gates, 4)
            if spoiled_by == "long ago":
                await asyncio.sleep(61)
            else:
                await gates[1].admit(MODEL, tokens=1, max_wait=60)
                await gates[1].report(MODEL, "ok" if spoiled_by == "an answer" else "other")
            await agents_fail(gates, 4)
        for gate in gates:
            await gate.admit(MODEL, tokens=1, max_wait=60)

    run_virtually(run())


def test_a_single_probe_checks_whether_the_provider_is_back() -> None:
    async def run() -> None:
        store = Store()
        gates = store.gates(3)
        provider = LimitedProvider(1000.0, down=True)
        await agents_fail(gates, 5)
        opened = (await store.state()).circuit.opened_at
        await asyncio.sleep(10)
        results = await asyncio.gather(
            *(ask(gates[index % 3], provider) for index in range(30)), return_exceptions=True
        )
        assert len(provider.refused) == 1, "more than one call was let through"
        assert sum(isinstance(result, CircuitOpenError) for result in results) == 29
        # Still down: twice as long.
        await asyncio.sleep(15)
        with pytest.raises(CircuitOpenError):
            await gates[1].admit(MODEL, tokens=1, max_wait=60)
        assert (await store.state()).circuit.opened_at == opened
        provider.down = False
        await asyncio.sleep(6)
        began = now()
        await all_ask(gates, provider, 100)
        times = sorted(moment - began for moment in provider.answered)
        assert sum(moment < times[1] + 0.1 for moment in times) <= 33, "all calls came back at once"
        assert not (await store.state()).circuit.is_open
        assert (await store.state()).counts.opened == 1

    run_virtually(run())


def test_a_probe_without_an_outcome_is_followed_by_another() -> None:
    async def run() -> None:
        gates = Store().gates(2)
        await agents_fail(gates, 5)
        await asyncio.sleep(10)
        await gates[0].admit(MODEL, tokens=1, max_wait=60)  # and never reports
        with pytest.raises(CircuitOpenError):
            await gates[1].admit(MODEL, tokens=1, max_wait=60)
        await asyncio.sleep(31)
        await gates[1].admit(MODEL, tokens=1, max_wait=60)
        await gates[1].report(MODEL, "ok")
        await gates[0].admit(MODEL, tokens=1, max_wait=60)

    run_virtually(run())


@pytest.mark.parametrize("during_a_probe", [False, True])
def test_a_call_from_before_the_outage_does_not_close_the_circuit(during_a_probe: bool) -> None:
    async def run() -> None:
        gates = Store().gates(2)
        begun, ended = asyncio.Event(), asyncio.Event()

        async def long_call() -> None:
            await gates[1].admit(MODEL, tokens=1, max_wait=60)
            begun.set()
            await ended.wait()
            await gates[1].report(MODEL, "ok")

        call = asyncio.create_task(long_call())
        await begun.wait()
        await agents_fail(gates, 5)
        if during_a_probe:
            await asyncio.sleep(10)
            await gates[1].admit(MODEL, tokens=1, max_wait=60)
        ended.set()
        await call
        with pytest.raises(CircuitOpenError):
            await gates[0].admit(MODEL, tokens=1, max_wait=60)

    run_virtually(run())


def test_retry_after_of_an_outage_is_respected() -> None:
    async def run() -> None:
        gates = Store().gates(2)
        await agents_fail(gates, 5, retry_after=90.0)
        with pytest.raises(CircuitOpenError) as refused:
            await gates[1].admit(MODEL, tokens=1, max_wait=60)
        assert refused.value.retry_after == pytest.approx(90, abs=2)

    run_virtually(run())


def test_without_a_store_each_process_limits_itself() -> None:
    async def run() -> None:
        store = Store()
        store.error = StoreUnavailableError("no connection")
        gates = [SharedGate(FallbackStore(store, now), {}) for _ in range(4)]
        provider = LimitedProvider(20.0)
        await all_ask(gates, provider, 200)
        assert len(provider.answered) == 200
        assert provider.waste < 0.4

    run_virtually(run())


def test_limits_are_shared_again_when_the_store_is_back() -> None:
    async def run() -> None:
        store = Store()
        first, second = (SharedGate(FallbackStore(store, now), {}) for _ in range(2))
        await first.admit(MODEL, tokens=1, max_wait=1)
        store.error = StoreUnavailableError("no connection")
        await asyncio.sleep(2)
        await first.admit(MODEL, tokens=1, max_wait=1)
        store.error = None
        await asyncio.sleep(60)
        await first.admit(MODEL, tokens=1, max_wait=1)
        await first.report(MODEL, "rate_limited", retry_after=100)
        with pytest.raises(HeldBackError):
            await second.admit(MODEL, tokens=1, max_wait=1)

    run_virtually(run())


def test_what_was_learned_remains_while_the_store_is_unavailable() -> None:
    async def run() -> None:
        store = Store()
        gate = SharedGate(FallbackStore(store, now), {})
        await gate.admit(MODEL, tokens=1, max_wait=1)
        await gate.report(MODEL, "rate_limited", retry_after=100)
        store.error = StoreUnavailableError("no connection")
        await asyncio.sleep(5)
        with pytest.raises(HeldBackError) as held:
            await gate.admit(MODEL, tokens=1, max_wait=1)
        assert held.value.retry_after == pytest.approx(95, abs=2)

    run_virtually(run())


def test_a_failing_limiter_admits_all_calls(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        store = Store()
        store.error = RuntimeError("a bug")
        (gate,) = store.gates(1)
        await asyncio.gather(*(gate.admit(MODEL, tokens=1, max_wait=1) for _ in range(5)))
        for outcome in ("ok", "rate_limited", "down", "other"):
            await gate.report(MODEL, outcome)
        await gate.close()

    run_virtually(run())
    assert "admits all calls" in caplog.text


def test_each_model_and_scope_has_its_own_limit() -> None:
    async def run() -> None:
        (gate,) = Store().gates(1)
        await gate.admit(MODEL, tokens=1, max_wait=1)
        await gate.report(MODEL, "rate_limited", retry_after=100)
        for other in ("openai:gpt-4.1@ffffff", "openai:gpt-4.1-mini@0a1b2c"):
            await gate.admit(other, tokens=1, max_wait=1)

    run_virtually(run())


def test_delayed_and_rejected_calls_are_counted() -> None:
    async def run() -> None:
        store = Store()
        (gate,) = store.gates(1)
        await gate.admit(MODEL, tokens=1, max_wait=1)
        await gate.report(MODEL, "rate_limited", retry_after=10)
        with pytest.raises(HeldBackError):
            await gate.admit(MODEL, tokens=1, max_wait=1)
        await gate.admit(MODEL, tokens=1, max_wait=60)
        await gate.close()
        counts = (await store.state()).counts
        assert (counts.held_back, counts.rate_limited, counts.opened) == (2, 1, 0)

    run_virtually(run())
