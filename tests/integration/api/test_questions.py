"""Questions through the API: who sees them, who may answer, once and for all, and waking the task in Airflow."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, create_engine, text

from backend.core.asking.questions import asked, breakpoint_at
from backend.core.asking.terms import QuestionTerms
from backend.core.jsonable import dumps
from backend.core.states import TaskState
from backend.db import questions
from backend.db.questions import NewQuestion
from backend.db.runs import events
from backend.db.runs.traces import Place
from backend.observation.task_context import TaskContext
from backend.runtime.waiting import TaskQuestions
from backend.services import questions as service
from tests.kit.airflow import FakeAirflow
from tests.kit.application import make_settings, sign_in
from tests.kit.recorded_runs import RecordedRun
from tests.kit.servers.postgres import Postgres
from tests.kit.waiting import eventually

DAG = "visual_ai_workflow"
Headers = Mapping[str, str]
SCHEMA = {"type": "object", "properties": {"seats": {"type": "integer"}}, "required": ["seats"]}
CALLS = {
    "action_requests": [{"name": "send_email", "args": {"to": "ann"}}, {"name": "pay", "args": {"amount": 3}}],
    "review_configs": [
        {"action_name": "send_email", "allowed_decisions": ["approve", "edit", "reject"]},
        {"action_name": "pay", "allowed_decisions": ["approve", "reject"]},
    ],
}


class Asker:
    """Ulla's run, whose task asks and is parked."""

    def __init__(self, backend: Engine, worker: Engine, airflow: FakeAirflow) -> None:
        self._backend = backend
        self._worker = worker
        self._airflow = airflow
        self._count = 0

    def run(self, run_id: str = "run", user: str = "ulla") -> RecordedRun:
        run = RecordedRun(self._backend, DAG, run_id, user=user)
        run.is_now("running", TaskState("ask", -1, 1, "awaiting_input"))
        self._airflow.add_run(DAG, run_id, "running", {"ask": "awaiting_input"}, triggering_user_name=user)
        return run

    def ask(
        self, run: RecordedRun, *contents: Any, schema: Any = None, parked: float = 60, task: str = "ask", **terms: Any
    ) -> list[str]:
        """Ask, `parked` seconds ago; returns the questions' ids."""
        found = []
        for content in contents:
            self._count += 1
            what = breakpoint_at(["pay"], None) if content is ... else asked(content, schema, "node")
            found.append(NewQuestion("thread", f"pause {self._count}", "asker", "node", what))
        place = Place(DAG, run.dag_run_id, task, -1, 1, "asker", "graph")
        with self._worker.begin() as connection:
            new = questions.ask(connection, run.id, place, found, QuestionTerms(**terms))
            events.append(connection, run.id, new)
            ids = [event.payload["question_id"] for event in new]
            questions.park(connection, DAG, run.dag_run_id, task, -1)
        with self._backend.begin() as connection:
            # Not of others: one that is being woken is locked by a transaction that needs the event loop.
            query = "UPDATE visual_ai.questions SET parked_at = now() - make_interval(secs => :s) WHERE id = ANY(:ids)"
            connection.execute(text(query), {"s": parked, "ids": list(map(UUID, ids))})
        return ids


@pytest.fixture
def asker(pg: Postgres, database_url: str, airflow: FakeAirflow) -> Iterator[Asker]:
    backend, worker = (create_engine(url, json_serializer=dumps) for url in (database_url, pg.worker_url))
    yield Asker(backend, worker, airflow)
    backend.dispose()
    worker.dispose()


async def listed(http: httpx.AsyncClient, headers: Headers, **query: Any) -> list[str]:
    page = await http.get("/questions", params=query, headers=headers)
    assert page.status_code == 200, page.text
    return [one["question_id"] for one in page.json()["questions"]]


async def answer(
    http: httpx.AsyncClient, headers: Headers, question: str, key: str = "", **body: Any
) -> httpx.Response:
    more = {"Idempotency-Key": key} if key else {}
    return await http.post(f"/questions/{question}/answer", json=body, headers={**headers, **more})


async def assign(http: httpx.AsyncClient, headers: Headers, question: str, *names: str) -> httpx.Response:
    return await http.post(f"/questions/{question}/assign", json={"assignees": names}, headers=headers)


async def test_an_answer_is_taken_once_and_wakes_the_task(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, asker: Asker
) -> None:
    run = asker.run()
    (question,) = asker.ask(run, {"question": "Who is it?", "draft": "x"})
    snapshot = (await http.get(f"/workflow-status/{DAG}/{run.dag_run_id}", headers=ulla)).json()
    assert (snapshot["state"], [one["question_id"] for one in snapshot["questions"]]) == ("awaiting_input", [question])
    assert "waits for people" in snapshot["reason"]
    shown = (await http.get(f"/questions/{question}", headers=ulla)).json()
    assert (shown["subject"], shown["state"], shown["content"]) == (
        "Who is it?",
        "open",
        {"question": "Who is it?", "draft": "x"},
    )
    taken = await answer(http, ulla, question, "key", answer=None)
    assert (taken.status_code, taken.json()["state"], taken.json()["answered_by"]) == (200, "answered", "ulla")
    await eventually(lambda: airflow.responses != [])
    assert airflow.responses == [("airflow", "ask", ["Answered"])]
    assert (await answer(http, ulla, question, "key", answer=None)).json() == taken.json()
    for key in ("", "other"):
        late = await answer(http, ulla, question, key, answer="Me.")
        assert late.status_code == 409
        assert late.json()["detail"].startswith("ulla has answered this question at 20")
    assert airflow.responses == [("airflow", "ask", ["Answered"])]
    assert await listed(http, ulla) == []
    assert await listed(http, ulla, state="answered") == [question]


async def test_two_people_answer_at_the_same_time(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, asker: Asker
) -> None:
    (question,) = asker.ask(asker.run(), "Who?")
    otto = await sign_in(http, "otto")
    answers = [answer(http, who, question, answer=n) for n, who in enumerate([ulla, otto] * 5)]
    statuses = sorted(one.status_code for one in await asyncio.gather(*answers))
    assert statuses == [200] + [409] * 9
    await eventually(lambda: len(airflow.responses) == 1)


async def test_answering_and_parking_at_the_same_time_wait_for_each_other(
    http: httpx.AsyncClient, ulla: Headers, asker: Asker, pg: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker parks a task for its second question while people answer it."""
    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", pg.worker_url)
    settings = make_settings(pg.worker_url)
    task = TaskQuestions(settings, TaskContext(DAG, "run", "ask", -1, 1, {}), QuestionTerms())
    run = asker.run()
    for number in range(15):
        ids = asker.ask(run, f"{number} a?", f"{number} b?")
        parking = [asyncio.to_thread(task.waiting) for _ in range(4)]
        answering = [answer(http, ulla, one, answer=1) for one in ids]
        done = await asyncio.gather(*parking, *answering)
        assert [one.status_code for one in done[4:] if isinstance(one, httpx.Response)] == [200, 200]


async def test_the_task_goes_on_when_all_of_its_questions_are_answered(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, asker: Asker
) -> None:
    first, second = asker.ask(asker.run(), "One?", "Two?")
    assert (await answer(http, ulla, first, answer=1)).is_success
    await asyncio.sleep(0.3)
    assert airflow.responses == []
    assert (await answer(http, ulla, second, answer=2)).is_success
    await eventually(lambda: len(airflow.responses) == 1)


@pytest.mark.parametrize(
    ("content", "schema", "body", "pointer", "detail"),
    [
        ("Who?", None, {}, "", "give either a decision or an answer"),
        ("Who?", None, {"decision": "approve", "answer": 1}, "", "give either a decision or an answer"),
        ("Who?", None, {"decision": "maybe"}, "/decision", "Input should be 'approve' or 'reject'"),
        ("Who?", None, {"decision": "approve"}, "/answer", "is missing: this question takes an `answer`"),
        ("How many?", SCHEMA, {"answer": {"seats": "two"}}, "/answer/seats", '"two" is not of type "integer"'),
        (
            {"question": "How many?", "schema": SCHEMA},
            None,
            {"answer": {}},
            "/answer",
            '"seats" is a required property',
        ),
        (..., None, {"answer": True}, "", "this graph asks nothing but to go on"),
        (CALLS, None, {"answer": {"decisions": [{"type": "approve"}]}}, "/answer/decisions", "has to hold a list of 2"),
        (
            CALLS,
            None,
            {"answer": {"decisions": [{"type": "approve"}, {"type": "edit"}]}},
            "/answer/decisions/1/type",
            "has to be one of approve, reject",
        ),
        (
            CALLS,
            None,
            {"answer": {"decisions": [{"type": "edit"}, {"type": "approve"}]}},
            "/answer/decisions/0/edited_action",
            "has to hold the `name`",
        ),
    ],
)
async def test_an_answer_that_does_not_fit_names_the_place(
    http: httpx.AsyncClient,
    ulla: Headers,
    asker: Asker,
    content: Any,
    schema: Any,
    body: dict[str, Any],
    pointer: str,
    detail: str,
) -> None:
    (question,) = asker.ask(asker.run(), content, schema=schema)
    refused = await answer(http, ulla, question, **body)
    assert refused.status_code == 422, refused.text
    (error,) = refused.json()["errors"]
    assert error["pointer"] == pointer
    assert detail in error["detail"]
    assert await listed(http, ulla) == [question]


@pytest.mark.parametrize(
    ("content", "body", "value"),
    [
        (CALLS, {"decision": "approve"}, {"decisions": [{"type": "approve"}] * 2}),
        (CALLS, {"decision": "reject"}, {"decisions": [{"type": "reject"}] * 2}),
        (..., {"decision": "approve"}, None),
        ("Who?", {"answer": {"any": ["thing", 1.5]}}, {"any": ["thing", 1.5]}),
    ],
)
async def test_what_the_graph_receives(
    http: httpx.AsyncClient, ulla: Headers, asker: Asker, content: Any, body: dict[str, Any], value: Any
) -> None:
    (question,) = asker.ask(asker.run(), content)
    taken = (await answer(http, ulla, question, **body)).json()
    assert (taken["answer"], taken["decision"]) == (value, body.get("decision"))


@pytest.mark.parametrize(
    ("terms", "who", "sees", "status"),
    [
        ({}, "ulla", True, 200),
        ({}, "otto", True, 200),
        ({}, "victor", True, 403),
        ({}, "uwe", False, 404),
        ({"assignees": ("uwe",)}, "uwe", True, 200),
        ({"assignees": ("uwe",)}, "ulla", True, 403),
        ({"assignees": ("uwe",)}, "otto", True, 403),
        ({"assignees": ("uwe",)}, "anna", True, 200),
        ({"four_eyes": True}, "ulla", True, 403),
        ({"four_eyes": True}, "otto", True, 200),
        ({"four_eyes": True, "assignees": ("ulla",)}, "ulla", True, 403),
    ],
)
async def test_who_may_answer(
    http: httpx.AsyncClient,
    asker: Asker,
    terms: dict[str, Any],
    who: str,
    sees: bool,
    status: int,
) -> None:
    (question,) = asker.ask(asker.run(), "Who?", **terms)
    headers = await sign_in(http, who)
    assert await listed(http, headers) == ([question] if sees else [])
    shown = await http.get(f"/questions/{question}", headers=headers)
    assert shown.status_code == (200 if sees else 404)
    refused = await answer(http, headers, question, answer="Me.")
    assert refused.status_code == status, refused.text
    if sees:  # they are told before they write an answer
        assert shown.json()["refusal"] == (refused.json()["detail"] if status == 403 else None)


async def test_a_question_is_handed_on(http: httpx.AsyncClient, ulla: Headers, asker: Asker) -> None:
    run, otto = asker.run(), await sign_in(http, "otto")
    (question,) = asker.ask(run, "Who?")
    given = await assign(http, ulla, question, "uwe")
    assert (given.status_code, given.json()["assignees"], given.json()["state"]) == (200, ["uwe"], "open")
    uwe = await sign_in(http, "uwe")
    assert await listed(http, uwe, mine=True) == [question]
    assert (await answer(http, ulla, question, answer="Me.")).status_code == 403
    assert (await assign(http, ulla, question, "ulla")).status_code == 403
    assert (await assign(http, uwe, question, "otto", "otto")).json()["assignees"] == ["otto"]
    assert (await answer(http, otto, question, answer="Otto.")).status_code == 200
    late = await assign(http, otto, question, "uwe")
    assert (late.status_code, late.json()["detail"][:28]) == (409, "otto has answered this quest")
    told = [event.payload["assignees"] for event in run.log() if event.type == "question"]
    assert told == [[], ["uwe"], ["otto"]]


@pytest.mark.parametrize(
    ("names", "pointer", "detail"),
    [
        ([], "/assignees", "at least 1 item"),
        (["uwe", ""], "/assignees/1", "at least 1 character"),
        (["uwe", "nobody"], "/assignees/1", "Airflow has no active user 'nobody'"),
        (["ulla"], "/assignees", "somebody else than the run's user has to answer"),
    ],
)
async def test_a_question_is_not_handed_on_to_nobody(
    http: httpx.AsyncClient, asker: Asker, names: list[str], pointer: str, detail: str
) -> None:
    otto = await sign_in(http, "otto")
    (question,) = asker.ask(asker.run(), "Who?", four_eyes=True)
    refused = await assign(http, otto, question, *names)
    assert refused.status_code == 422, refused.text
    (error,) = refused.json()["errors"]
    assert error["pointer"] == pointer
    assert detail in error["detail"]


async def test_nobody_waits_for_an_answer_any_more(http: httpx.AsyncClient, ulla: Headers, asker: Asker) -> None:
    run = asker.run()
    (question,) = asker.ask(run, "Who?")
    run.is_now("failed")
    late = await answer(http, ulla, question, answer="Me.")
    assert late.status_code == 409
    assert late.json()["detail"] == "Nobody waits for this answer any more: the run has ended (failed)."
    assert await listed(http, ulla) == []
    assert await listed(http, ulla, state="closed") == [question]
    assert (await http.get("/questions/00000000-0000-0000-0000-000000000000", headers=ulla)).status_code == 404


async def test_pages_and_filters(http: httpx.AsyncClient, ulla: Headers, asker: Asker) -> None:
    run = asker.run()
    ids = [asker.ask(run, f"{n}?")[0] for n in range(5)]
    (mine,) = asker.ask(run, "Mine?", assignees=("ulla",))
    first = (await http.get("/questions", params={"limit": 4}, headers=ulla)).json()
    rest = await listed(http, ulla, limit=4, cursor=first["next_cursor"])
    assert [one["question_id"] for one in first["questions"]] + rest == [*ids, mine]
    latest = (await http.get("/questions", params={"limit": 4, "order": "newest"}, headers=ulla)).json()
    earlier = await listed(http, ulla, limit=4, order="newest", cursor=latest["next_cursor"])
    assert [one["question_id"] for one in latest["questions"]] + earlier == [mine, *reversed(ids)]
    assert await listed(http, ulla, mine=True) == [mine]
    assert await listed(http, ulla, dag_run_id="other") == []
    assert await listed(http, ulla, older_than=3600) == []
    assert (await http.get("/questions", params={"cursor": "x"}, headers=ulla)).status_code == 422


async def test_a_large_content_is_cut_in_lists(http: httpx.AsyncClient, ulla: Headers, asker: Asker) -> None:
    (question,) = asker.ask(asker.run(), {"draft": "x" * 100_000})
    (shown,) = (await http.get("/questions", headers=ulla)).json()["questions"]
    assert (shown["content"]["truncated"], shown["content"]["bytes"]) == (True, 100_013)
    whole = (await http.get(f"/questions/{question}", headers=ulla)).json()
    assert whole["content"] == {"draft": "x" * 100_000}
    assert (await answer(http, ulla, question, answer="Fine.")).is_success


async def test_an_answer_while_airflow_is_away_wakes_the_task_later(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "INTERVAL", 0.05)
    (question,) = asker.ask(asker.run(), "Who?")
    airflow.fail("hitlDetails", times=7)
    assert (await answer(http, ulla, question, answer="Me.")).status_code == 200
    assert airflow.responses == []
    await eventually(lambda: len(airflow.responses) == 1)
    await asyncio.sleep(0.3)
    assert len(airflow.responses) == 1


async def test_a_task_that_was_parked_just_now_is_woken_a_little_later(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "INTERVAL", 0.05)
    monkeypatch.setattr(service, "PARKED", 2.0)
    (question,) = asker.ask(asker.run(), "Who?", parked=0)
    assert (await answer(http, ulla, question, answer="Me.")).status_code == 200
    assert airflow.responses == []
    await eventually(lambda: len(airflow.responses) == 1)


async def test_who_comes_later_sees_what_is_open(http: httpx.AsyncClient, ulla: Headers, asker: Asker) -> None:
    run = asker.run()
    first, second = asker.ask(run, "How many?", "Who?", schema=SCHEMA)
    await answer(http, ulla, first, answer={"seats": 2})
    shown = (await http.get(f"/workflow-status/{DAG}/run", headers=ulla)).json()
    assert [(one["question_id"], one["subject"]) for one in shown["questions"]] == [(second, "Who?")]


async def test_the_stream_tells_of_questions_and_answers(http: httpx.AsyncClient, ulla: Headers, asker: Asker) -> None:
    run = asker.run()
    (question,) = asker.ask(run, "How many?", schema=SCHEMA, timeout=60.0)
    await answer(http, ulla, question, answer={"seats": 2})
    run.is_now("success")
    stream = await http.get(f"/workflow-status/stream/{DAG}/run", headers={**ulla, "Last-Event-ID": "0"})
    told: Sequence[str] = [
        line for line in stream.text.split("\n\n") if "event: question" in line or "event: answer" in line
    ]
    assert len(told) == 2
    assert f'"question_id":"{question}"' in told[0].replace(": ", ":")
    assert '"schema"' in told[0]
    assert '"expires_at"' in told[0]
    assert '"by":"ulla"' in told[1].replace(": ", ":")
