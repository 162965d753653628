"""Whether a run's page stays responsive under many events: real Chromium, real backend, real stream."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from playwright.sync_api import CDPSession, Page, expect

from backend.core.events import NewEvent
from backend.db.runs import events
from backend.stack.frontend import Frontend
from tests.benchmarks.report import Goal, Result, percentile
from tests.benchmarks.streams import DAG_ID, System, started_system
from tests.kit.airflow import PASSWORD
from tests.kit.processes.browser import CHROMIUM, Visitor, chromium
from tests.kit.processes.stack import ROOT, free_port, wait_until

RUN_ID = "run-0"
EVENTS_A_SECOND = 60
SECONDS = 25.0
AGENTS = 5
"""Each streams tokens and runs its nodes repeatedly."""

GOAL_PAINT_MS = 200.0
"""From an input to the next frame, p95: the bound for a good Interaction to Next Paint by web.dev."""
GOAL_BUSY_PERCENT = 50.0

OBSERVE = """
() => {
  window.measured = { long: [], inputs: [] };
  new PerformanceObserver((list) => measured.long.push(...list.getEntries().map((one) => one.duration)))
    .observe({ type: "longtask" });
  // Until after the next frame: what a person waits for.
  for (const type of ["pointerdown", "keydown"]) {
    addEventListener(type, (event) => {
      requestAnimationFrame(() => setTimeout(() => measured.inputs.push(performance.now() - event.timeStamp)));
    }, { capture: true });
  }
}
"""


def measure(*, seconds: float = SECONDS, rate: int = EVENTS_A_SECOND) -> Result:
    """The load of a run's page on its browser at `rate` events per second, and its response time to user input.

    Somebody changes between tabs and presses keys all the time. The events are tokens of several agents, and updates of
    their nodes; each is a commit of its own. At the end the page must have shown all of them.
    """
    with started_system(runs=1) as running, _pages(running.backend.url) as url, chromium() as browser:
        visitor = Visitor(browser, url)
        visitor.sign_in("anna", PASSWORD)
        page = visitor.page
        page.goto(f"/runs/{DAG_ID}/{RUN_ID}?tab=agents")
        expect(page.get_by_role("status", name="Connection")).to_contain_text("Live")
        profile = page.context.new_cdp_session(page)
        profile.send("Performance.enable")
        page.evaluate(OBSERVE)
        before, heap = _metrics(profile), _heap(profile)
        ended = threading.Event()
        written = [0]
        writer = threading.Thread(target=_write, args=(running, rate, ended, written))
        began = time.perf_counter()
        writer.start()
        while time.perf_counter() - began < seconds:
            _use(page)
        after = _metrics(profile)
        took = time.perf_counter() - began
        ended.set()
        writer.join()
        told = written[0]
        page.get_by_role("tab", name="Agents").click()
        wait_until(lambda: _words(page) == _told(told), timeout=30, what="all that was told")
        measured: dict[str, list[float]] = page.evaluate("measured")
        grown = _heap(profile) - heap
        assert visitor.complaints == []
    busy = {name: after[name] - before[name] for name in ("TaskDuration", "ScriptDuration", "LayoutDuration")}
    figures = {
        "events_a_second": told / took,
        "main_thread_busy_percent": busy["TaskDuration"] / took * 100,
        "script_percent": busy["ScriptDuration"] / took * 100,
        "layout_percent": busy["LayoutDuration"] / took * 100,
        "long_tasks": float(len(measured["long"])),
        "longest_task_ms": max(measured["long"], default=0.0),
        "inputs": float(len(measured["inputs"])),
        "input_to_paint_p50_ms": percentile(measured["inputs"], 50),
        "input_to_paint_p95_ms": percentile(measured["inputs"], 95),
        "heap_growth_mib": grown / 1024**2,
    }
    goals = [
        Goal("input to next frame, p95 ms", figures["input_to_paint_p95_ms"], GOAL_PAINT_MS),
        Goal("main thread busy, %", figures["main_thread_busy_percent"], GOAL_BUSY_PERCENT),
    ]
    settings = {"seconds": seconds, "rate": rate, "agents": AGENTS, "chromium": CHROMIUM}
    return Result("page", figures, goals, {"input_to_paint_ms": measured["inputs"]}, settings)


TABS = ("Timeline", "Agents", "Errors", "Agents")


def _use(page: Page) -> None:
    """What a user does in about two seconds."""
    for tab in TABS:
        page.get_by_role("tab", name=tab).click()
        page.keyboard.press("Shift")
        page.wait_for_timeout(400)


NODES_EVERY = 4
"""One in this many events is a node's."""


def _write(running: System, rate: int, ended: threading.Event, written: list[int]) -> None:
    """Write events of the run at this rate; `written` receives their numbers."""
    began, number = time.perf_counter(), 0
    while not ended.is_set():
        running.writer.run(events.append, running.execution_ids[0], [_event(number)])
        number += 1
        written[0] = number
        wait = began + number / rate - time.perf_counter()
        if wait > 0:
            time.sleep(wait)


def _event(number: int) -> NewEvent:
    agent = f"agent-{number % AGENTS}"
    place: dict[str, Any] = {"task_id": "b", "map_index": -1, "try_number": 1, "agent": agent, "attempt": 1}
    if number % NODES_EVERY < NODES_EVERY - 1:
        return NewEvent("token", {**place, "node": "analyse", "call": 1, "text": f" {number} "})
    used = {"input_tokens": 10, "output_tokens": 10, "cost_usd": 0.0001, "latency_ms": 12.0}
    state = "success" if number % (2 * NODES_EVERY) < NODES_EVERY else "running"
    node = {"node": f"step-{number % 5}", "type": "text", "model": "openai:gpt-4.1-mini", "state": state}
    return NewEvent("agent_update", {**place, **node, **used, "retries": 0, "fallbacks": 0, "notice": None})


def _told(number: int) -> list[int]:
    return [one for one in range(number) if one % NODES_EVERY < NODES_EVERY - 1]


def _words(page: Page) -> list[int]:
    """The text of all agents, in the order of its events."""
    return sorted(int(word) for text in page.get_by_role("log").all_inner_texts() for word in text.split())


def _metrics(profile: CDPSession) -> dict[str, float]:
    return {one["name"]: one["value"] for one in profile.send("Performance.getMetrics")["metrics"]}


def _heap(profile: CDPSession) -> float:
    """Bytes in use after a garbage collection."""
    profile.send("HeapProfiler.collectGarbage")
    return _metrics(profile)["JSHeapUsedSize"]


@contextmanager
def _pages(backend_url: str) -> Iterator[str]:
    """The built page in front of this backend, served as `make up` serves it."""
    frontend = Frontend(ROOT)
    nodejs = frontend.build()
    port = free_port()
    command = [str(nodejs.program), "node_modules/vite/bin/vite.js", "preview", "--host", "127.0.0.1"]
    environment = {"VISUAL_AI_BACKEND_URL": backend_url, "VISUAL_AI_FRONTEND_PORT": str(port), "CI": "true"}
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        command, cwd=frontend.folder, env=nodejs.environment({**os.environ, **environment}), stdout=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(lambda: _answers(url), timeout=60, what="the page")
            yield url
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False
