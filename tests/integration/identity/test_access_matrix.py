"""Who may do what: each operation of the OpenAPI document, for each kind of caller.

A new operation needs a row, and an example of a request that is valid, so that nothing but the caller decides.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, text

from backend.api.langgraph import app as langgraph
from backend.api.main import create_app
from backend.db.conversations.assistants import keep_graphs
from tests.kit.airflow import PASSWORD, SECRET, FakeAirflow, User
from tests.kit.application import PRODUCTION, application, client_of, make_settings, sign_in
from tests.kit.pictures import encode, photo
from tests.kit.recorded_runs import RecordedRun

DAG, OTHER_DAG, RUN, DONE = "a", "b", "running", "done"
PARAMS: dict[str, Any] = {"query": {"value": "x", "description": None, "schema": {"type": "string"}}}
EVERYTHING = ["DAG Runs", "DAG Code", "Task Instances", "Task Logs", "XComs"]

CALLERS = {
    "nobody": "without a token",
    "forged": "with a token that we didn't issue",
    "local": "without a token, from this machine, in development",
    "victor": "a Viewer",
    "ulla": "a User; the runs, template, picture and token are hers",
    "felix": "a FlowUser with nothing of his own",
    "stella": "a custom role with all rights on the DAG",
    "bert": "a custom role with all rights on another DAG",
    "otto": "an Op",
    "anna": "an Admin",
    "reader": "ulla's service token with the scope read",
    "starter": "anna's service token with the scope trigger",
}

USERS = ("victor", "ulla", "felix", "stella", "bert", "otto", "anna")

# One character for each caller, in the order above: `+` permitted, `1` 401, `3` 403, `4` hidden: 404. Lists and batches
# are permitted to whoever may ask; `test_custom_roles.py` tests what is in them.
MATRIX = """
GET /audit                                                                 111333333+33
GET /auth/airflow                                                          ++++++++++++
POST /auth/airflow                                                         ++++++++++++
POST /auth/logout                                                          ++++++++++++
POST /auth/token                                                           ++++++++++++
GET /healthz                                                               ++++++++++++
POST /images                                                               1113++++++3+
GET /images/remote                                                         111++++++++3
GET /images/samples/{name}                                                 111+++++++++
GET /images/{image_id}                                                     111++444+++3
POST /langgraph/assistants                                                 1113+++4++3+
POST /langgraph/assistants/count                                           11+++++++++3
POST /langgraph/assistants/search                                          11+++++++++3
DELETE /langgraph/assistants/{assistant_id}                                1113+334++3+
GET /langgraph/assistants/{assistant_id}                                   11+++++4+++3
PATCH /langgraph/assistants/{assistant_id}                                 1113+334++3+
GET /langgraph/assistants/{assistant_id}/graph                             11+++++4+++3
POST /langgraph/assistants/{assistant_id}/latest                           1113+334++3+
GET /langgraph/assistants/{assistant_id}/schemas                           11+++++4+++3
GET /langgraph/assistants/{assistant_id}/subgraphs                         11+++++4+++3
GET /langgraph/assistants/{assistant_id}/subgraphs/{namespace}             11+++++4+++3
POST /langgraph/assistants/{assistant_id}/versions                         11+++++4+++3
GET /langgraph/info                                                        ++++++++++++
GET /langgraph/ok                                                          ++++++++++++
POST /langgraph/runs                                                       1113+++4++33
POST /langgraph/runs/batch                                                 1113+++4++33
POST /langgraph/runs/cancel                                                1113+4+4++33
POST /langgraph/runs/crons                                                 1113+++4++3+
POST /langgraph/runs/crons/count                                           11+++++++++3
POST /langgraph/runs/crons/search                                          11+++++++++3
DELETE /langgraph/runs/crons/{cron_id}                                     1113+4+4++34
GET /langgraph/runs/crons/{cron_id}                                        11+++4+4+++3
PATCH /langgraph/runs/crons/{cron_id}                                      1113+4+4++34
POST /langgraph/runs/stream                                                1113+++4++33
POST /langgraph/runs/wait                                                  1113+++4++33
DELETE /langgraph/store/items                                              1113+333++33
GET /langgraph/store/items                                                 1133+333+++3
PUT /langgraph/store/items                                                 1113+333++33
POST /langgraph/store/items/search                                         1133+333+++3
POST /langgraph/store/namespaces                                           11+++++++++3
POST /langgraph/threads                                                    1113++++++33
POST /langgraph/threads/count                                              11+++++++++3
POST /langgraph/threads/prune                                              1113+4+4++34
POST /langgraph/threads/search                                             11+++++++++3
DELETE /langgraph/threads/{thread_id}                                      1113+4+4++34
GET /langgraph/threads/{thread_id}                                         11+++4+4+++3
PATCH /langgraph/threads/{thread_id}                                       1113+4+4++34
POST /langgraph/threads/{thread_id}/commands                               111+++++++++
POST /langgraph/threads/{thread_id}/copy                                   1113+4+4++34
GET /langgraph/threads/{thread_id}/history                                 11+++4+4+++3
POST /langgraph/threads/{thread_id}/history                                11+++4+4+++3
GET /langgraph/threads/{thread_id}/runs                                    11+++4+4+++3
POST /langgraph/threads/{thread_id}/runs                                   1113+4+4++34
POST /langgraph/threads/{thread_id}/runs/crons                             1113+4+4++34
POST /langgraph/threads/{thread_id}/runs/stream                            1113+4+4++34
POST /langgraph/threads/{thread_id}/runs/wait                              1113+4+4++34
DELETE /langgraph/threads/{thread_id}/runs/{run_id}                        1113+4+4++34
GET /langgraph/threads/{thread_id}/runs/{run_id}                           11+++4+4+++3
POST /langgraph/threads/{thread_id}/runs/{run_id}/cancel                   1113+4+4++33
GET /langgraph/threads/{thread_id}/runs/{run_id}/join                      11+++4+4+++3
GET /langgraph/threads/{thread_id}/runs/{run_id}/stream                    11+++4+4+++3
GET /langgraph/threads/{thread_id}/state                                   11+++4+4+++3
POST /langgraph/threads/{thread_id}/state                                  1113+4+4++34
POST /langgraph/threads/{thread_id}/state/checkpoint                       11+++4+4+++3
GET /langgraph/threads/{thread_id}/state/{checkpoint_id}                   11+++4+4+++3
GET /langgraph/threads/{thread_id}/stream                                  11+++4+4+++3
POST /langgraph/threads/{thread_id}/stream/events                          11+++4+4+++3
GET /limits                                                                11133333++33
GET /limits/mine                                                           111++++++++3
DELETE /limits/{limit_id}                                                  111333333+33
PUT /limits/{limit_id}                                                     111333333+33
GET /metrics                                                               11+33333++33
GET /monitoring/agent-performance                                          11+++++++++3
GET /monitoring/error-distribution                                         11+++++++++3
GET /monitoring/system-health                                              11+++++++++3
GET /monitoring/workflow-metrics                                           11+++++++++3
GET /notifications                                                         11133333++33
POST /notifications/{notification_id}/resend                               11133333++33
GET /questions                                                             11+++++++++3
GET /questions/{question_id}                                               11+++4+4+++3
POST /questions/{question_id}/answer                                       1113+4+4++33
POST /questions/{question_id}/assign                                       1113+4+4++33
GET /readyz                                                                ++++++++++++
GET /templates                                                             11+++++++++3
POST /templates                                                            1113+++4++33
GET /templates/schema                                                      11+++++++++3
GET /templates/{name}                                                      11+++++4+++3
POST /templates/{name}/retire                                              1113+334++33
DELETE /templates/{name}/schedule                                          1113+3+4++33
GET /templates/{name}/schedule                                             11+++++4+++3
PUT /templates/{name}/schedule                                             1113+3+4++33
GET /templates/{name}/versions                                             11+++++4+++3
POST /templates/{name}/versions                                            1113+334++33
GET /templates/{name}/versions/{version}                                   11+++++4+++3
POST /templates/{name}/versions/{version}/activate                         1113+334++33
GET /tokens                                                                111+++++++33
POST /tokens                                                               111+++++++33
DELETE /tokens/{token_id}                                                  1114+4444+33
GET /users/me                                                              111+++++++++
GET /users/me/preferences                                                  111+++++++33
PUT /users/me/preferences                                                  111+++++++33
POST /users/me/sign-out                                                    111+++++++33
POST /users/{user_id}/sign-out                                             111333333+33
GET /workflow-status                                                       11+++++++++3
GET /workflow-status/compare                                               11+++4+4+++3
GET /workflow-status/stream/{dag_id}/{dag_run_id}                          11+++4+4+++3
GET /workflow-status/streams                                               11+++++++++3
GET /workflow-status/{dag_id}/{dag_run_id}                                 11+++4+4+++3
GET /workflow-status/{dag_id}/{dag_run_id}/agents                          11+++4+4+++3
GET /workflow-status/{dag_id}/{dag_run_id}/errors                          11+++4+4+++3
GET /workflow-status/{dag_id}/{dag_run_id}/input                           11+++4+4+++3
GET /workflow-status/{dag_id}/{dag_run_id}/items/{task_id}                 11+++4+4+++3
GET /workflow-status/{dag_id}/{dag_run_id}/items/{task_id}/{index}/output  11+++4+4+++3
GET /workflow-status/{dag_id}/{dag_run_id}/result                          11+++4+4+++3
GET /workflow-status/{dag_id}/{dag_run_id}/tasks                           11+++4+4+++3
GET /workflow-status/{dag_id}/{dag_run_id}/tasks/{task_id}/logs            11+++4+4+++3
GET /workflow-status/{dag_id}/{dag_run_id}/tool-calls                      11+++4+4+++3
GET /workflow-status/{dag_id}/{dag_run_id}/traces/{trace_id}               11+++4+4+++3
GET /workflow-status/{dag_id}/{dag_run_id}/traces/{trace_id}/input         11+++4+4+++3
GET /workflow-status/{dag_id}/{dag_run_id}/traces/{trace_id}/output        11+++4+4+++3
GET /workflows                                                             11+++++++++3
POST /workflows/trigger                                                    1113+++4++3+
POST /workflows/trigger/batch                                              1113++++++3+
GET /workflows/{dag_id}                                                    11+++++4+++3
POST /workflows/{dag_id}/runs/{dag_run_id}/cancel                          1113+4+4++33
POST /workflows/{dag_id}/runs/{dag_run_id}/fork                            1113+4+4++34
POST /workflows/{dag_id}/runs/{dag_run_id}/retry                           1113+4+4++33
GET /workflows/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/checkpoints      11+++4+4+++3
GET /workflows/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/checkpoints/{checkpoint_id} 11+++4+4+++3
GET /workflows/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/checkpoints/{checkpoint_id}/values 11+++4+4+++3
POST /workflows/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/fork            1113+4+4++34
DELETE /workflows/{dag_id}/schedule                                        1113+3+4++33
GET /workflows/{dag_id}/schedule                                           11+++++4+++3
PUT /workflows/{dag_id}/schedule                                           1113+3+4++33
"""


def rules() -> dict[tuple[str, str], str]:
    """The characters of each operation."""
    found = {}
    for line in filter(str.strip, MATRIX.splitlines()):
        method, path, outcomes = line.split()
        assert len(outcomes) == len(CALLERS), line
        found[method, path] = outcomes
    return found


@dataclass(frozen=True)
class World:
    """Two backends, in production and in development, and one of everything that operations are about."""

    production: httpx.AsyncClient
    development: httpx.AsyncClient
    tokens: dict[str, str]
    ids: Mapping[str, str]
    engine: Engine

    async def headers(self, caller: str) -> Mapping[str, str]:
        """The headers of a caller's requests."""
        if caller in ("nobody", "local"):
            return {}
        if caller not in self.tokens:
            self.tokens[caller] = (await sign_in(self.production, caller))["Authorization"]
        return {"Authorization": self.tokens[caller]}

    async def ask(self, caller: str, method: str, path: str) -> httpx.Response:
        """The response to a valid request."""
        http = self.development if caller == "local" else self.production
        address = path.replace("/samples/{name}", "/samples/invoice")
        for name, value in self.ids.items():
            address = address.replace(f"{{{name}}}", value)
        request = EXAMPLES.get((method, path), {})
        if path.startswith("/langgraph") and method in ("POST", "PATCH") and not request:
            request = RUN_OF_THE_GRAPH if path.endswith(("/runs", "/runs/stream", "/runs/wait")) else NO_BODY
        if (method, path) == ("POST", "/auth/airflow"):
            claims = {"sub": "ulla", "exp": 4e9}
            request = {"json": {"airflow_token": jwt.encode(claims, SECRET, algorithm="HS256")}}
        if method == "POST" and path.endswith(("/cancel", "/retry")):
            address = address.replace(DONE, RUN)
        if path.endswith("/schedule"):
            self.set_schedules_of_ulla()
        if path.startswith("/langgraph"):
            self.set_conversation_of_ulla()
        response = await http.request(method, address, headers=await self.headers(caller), **request)
        http.cookies.clear()
        if path.endswith(("/logout", "/sign-out")) and response.is_success and caller in USERS:
            del self.tokens[caller]
        return response

    def set_schedules_of_ulla(self) -> None:
        """Set the schedules of the workflow and of the template as if ulla had."""
        with self.engine.begin() as connection:
            connection.execute(text("DELETE FROM visual_ai.schedules"))
            connection.execute(
                text("""
                    INSERT INTO visual_ai.schedules (kind, dag_id, template, timetable, starts_from, user_id)
                    VALUES ('workflow', :dag, NULL, :timetable, now(), 'ulla'),
                           ('template', :dag, :template, :timetable, now(), 'ulla')"""),
                {"dag": DAG, "template": NAMES["name"], "timetable": '{"kind": "delta", "seconds": 3600}'},
            )

    def set_conversation_of_ulla(self) -> None:
        """Set a thread with a run and a state, an assistant and a cron as if ulla had."""
        with self.engine.begin() as connection:
            for table in ("conversations", "assistants", "schedules"):
                connection.execute(text(f"DELETE FROM visual_ai.{table}"))
            for statement in CONVERSATION:
                connection.execute(text(statement), {**NAMES, "dag": DAG})


CONVERSATION = (
    """
    INSERT INTO visual_ai.conversations (id, user_id, dag_id, graph_id) VALUES (:thread_id, 'ulla', :dag, 'agent')
    """,
    """
    INSERT INTO visual_ai.conversation_turns
        (id, conversation_id, dag_id, dag_run_id, user_id, state, after_seq, ended_at)
    VALUES (:run_id, :thread_id, :dag, :dag_run_id, 'ulla', 'success', 0, now())
    """,
    """
    INSERT INTO visual_ai.conversation_frames (conversation_id, seq, turn_id, mode, namespace, data)
    VALUES (:thread_id, 1, :run_id, 'lifecycle', '{}', '{"event": "completed"}')
    """,
    "UPDATE visual_ai.conversations SET last_seq = 1",
    """
    INSERT INTO visual_ai.assistants (id, version, latest, graph_id, name, created_by)
    VALUES (:assistant_id, 1, true, 'agent', 'hers', 'ulla')
    """,
    """
    INSERT INTO visual_ai.schedules (id, kind, dag_id, timetable, starts_from, user_id, extra)
    VALUES (:cron_id, 'free', :dag, '{"kind": "crons", "crons": ["0 0 * * *"]}', now(), 'ulla',
        '{"cron": {"request": {"assistant_id": "agent"}, "assistant_id": "agent", "thread_id": null}}')
    """,
)


TEMPLATE = {"dag_id": DAG, "input_data": {"query": "x"}}
EXAMPLES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/auth/token"): {"json": {"username": "victor", "password": PASSWORD}},
    ("PUT", "/limits/{limit_id}"): {"json": {"subject": "user:ulla", "kind": "batch_size", "limit": 50}},
    ("POST", "/questions/{question_id}/answer"): {"json": {"answer": "yes"}},
    ("POST", "/questions/{question_id}/assign"): {"json": {"assignees": ["ulla"]}},
    ("POST", "/tokens"): {"json": {"name": "mine", "scopes": ["read"]}},
    ("POST", "/workflows/trigger"): {"json": {"dag_id": DAG, "input_data": {"query": "x"}}},
    ("POST", "/workflows/trigger/batch"): {"json": {"dag_id": DAG, "inputs": [{"query": "x"}]}},
    ("POST", "/workflows/{dag_id}/runs/{dag_run_id}/fork"): {"json": {"task_id": "work"}},
    ("POST", "/workflows/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/fork"): {"json": {}},
    ("GET", "/workflow-status/compare"): {"params": {"left": f"{DAG}/{DONE}", "right": f"{DAG}/{DONE}"}},
    ("GET", "/workflow-status/streams"): {"params": {"run": f"{DAG}/{DONE}"}},
    ("PUT", "/users/me/preferences"): {"json": {"default_model": None}},
    ("POST", "/templates"): {"json": {"name": "another", "definition": TEMPLATE}},
    ("POST", "/templates/{name}/versions"): {"json": {"definition": TEMPLATE}},
    ("PUT", "/workflows/{dag_id}/schedule"): {"json": {"cron": "@daily", "input_data": {"query": "x"}}},
    ("PUT", "/templates/{name}/schedule"): {"json": {"cron": "@daily"}},
    ("POST", "/images"): {"files": {"file": ("a.png", encode(photo(8, 8)), "image/png")}},
    ("GET", "/images/remote"): {"params": {"url": "http://127.0.0.1:1/a.png"}},
}
NAMES = {"dag_id": DAG, "dag_run_id": DONE, "task_id": "work", "index": "0", "name": "of-ulla", "version": "1",
         "user_id": "nora", "limit_id": "a-limit", "checkpoint_id": "1f0", "namespace": "inner"} | {
    f"{name}_id": f"7f0e0b1e-4b59-4c0e-8f0f-00000000000{number}"
    for number, name in enumerate(("thread", "run", "assistant", "cron"))
}  # fmt: skip
ITEM = {"namespace": ["ulla"], "key": "k"}
LANGGRAPH: dict[tuple[str, str], Any] = {
    ("POST", "/assistants"): {"graph_id": "agent"},
    ("PATCH", "/assistants/{assistant_id}"): {"name": "another"},
    ("POST", "/assistants/{assistant_id}/latest"): {"version": 1},
    ("POST", "/threads/prune"): {"thread_ids": [NAMES["thread_id"]], "strategy": "keep_latest"},
    ("POST", "/threads/{thread_id}/state/checkpoint"): {"checkpoint": {"checkpoint_id": "1f0"}},
    ("POST", "/threads/{thread_id}/commands"): {"method": "agent.getTree"},
    ("POST", "/threads/{thread_id}/stream/events"): {"channels": ["lifecycle"]},
    ("POST", "/threads/{thread_id}/runs/crons"): {"assistant_id": "agent", "schedule": "0 0 * * *"},
    ("POST", "/runs/crons"): {"assistant_id": "agent", "schedule": "0 0 * * *"},
    ("PATCH", "/runs/crons/{cron_id}"): {"enabled": False},
    ("POST", "/runs/batch"): [{"assistant_id": "agent"}],
    ("POST", "/runs/cancel"): {"thread_id": NAMES["thread_id"], "run_ids": []},
    ("PUT", "/store/items"): {**ITEM, "value": {}},
    ("DELETE", "/store/items"): ITEM,
    ("POST", "/store/items/search"): {"namespace_prefix": ["ulla"]},
}
EXAMPLES |= {(method, f"/langgraph{path}"): {"json": body} for (method, path), body in LANGGRAPH.items()}
EXAMPLES["GET", "/langgraph/store/items"] = {"params": {"namespace": "ulla", "key": "k"}}
RUN_OF_THE_GRAPH = {"json": {"assistant_id": "agent", "input": {"query": "x"}}}
NO_BODY: dict[str, Any] = {"json": {}}


def custom(dag_id: str) -> list[tuple[str, str]]:
    """The permissions of a role with all rights on one DAG."""
    runs = [(action, "DAG Runs") for action in ("can_read", "can_edit", "can_create")]
    return [("can_read", f"DAG:{dag_id}"), ("can_edit", f"DAG:{dag_id}"), *runs]


@pytest.fixture
async def world(database_url: str, engine: Engine, worker: Engine, no_reconciler: None) -> AsyncIterator[World]:
    airflow = FakeAirflow()
    airflow.roles |= {
        "Of a": custom(DAG),
        "Of b": custom(OTHER_DAG),
        "FlowUser": [("can_read", "DAGs"), ("can_edit", "DAGs"), ("can_create", "DAG Runs"), ("can_read", "Website")],
    }
    for name, role in (("felix", "FlowUser"), ("stella", "Of a"), ("bert", "Of b")):
        airflow.users[name] = User(PASSWORD, [role])
    for dag_id in (DAG, OTHER_DAG):
        airflow.add_dag(dag_id, params=PARAMS)
    airflow.add_run(DAG, RUN, tasks={"work": "running"})
    airflow.add_run(DAG, DONE, "success", tasks={"work": "success"})
    airflow.set_log(DAG, DONE, "work", [{"event": "hello"}])
    RecordedRun(engine, DAG, RUN).is_now("running")
    run = RecordedRun(engine, DAG, DONE)
    run.is_now("running")
    run.agent("work", "vision", "running")
    run.agent("work", "vision", "success")
    run.returns({"answer": 42}, "work")
    run.is_now("success")
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO visual_ai.batch_items
                    (execution_id, task_id, map_index, item_index, state, try_number, output)
                VALUES (CAST(:id AS uuid), 'work', -1, 0, 'success', 1, '1')"""),
            {"id": run.id},
        )
        connection.execute(text("UPDATE visual_ai.agent_traces SET input = '\"in\"', output = '\"out\"'"))
        trace_id = connection.execute(text("SELECT id::text FROM visual_ai.agent_traces")).scalar_one()
        notification_id = connection.execute(
            text("""
                INSERT INTO visual_ai.notifications
                    (user_id, target, execution_id, event, cause, payload, occurred_at, state, finished_at)
                VALUES ('ulla', 'gone', CAST(:id AS uuid), 'run_failed', 'x', '{}', now(), 'dead', now())
                RETURNING id::text"""),
            {"id": run.id},
        ).scalar_one()
    with worker.begin() as connection:
        question_id = connection.execute(
            text("""
                INSERT INTO visual_ai.questions
                    (execution_id, task_id, try_number, agent, thread_id, pause, kind, subject)
                SELECT id, 'work', 1, 'asker', 'thread', 'pause', 'question', 'Really?'
                FROM visual_ai.workflow_executions WHERE dag_run_id = :run RETURNING id::text"""),
            {"run": RUN},
        ).scalar_one()
        thread = {"id": run.id, "thread": f"{DAG}/{DONE}/work/-1"}
        connection.execute(
            text("""
                INSERT INTO visual_ai.workflow_threads (thread_id, execution_id, try_number, agents, input_hash)
                VALUES (:thread, CAST(:id AS uuid), 1, ARRAY[:thread], '')"""),
            thread,
        )
        connection.execute(
            text("""
                INSERT INTO visual_ai.checkpoints (thread_id, checkpoint_id, checkpoint, metadata)
                VALUES (:thread, '1f0', '{"ts": "2026-01-01T00:00:00Z", "channel_values": {}}', '{}')"""),
            [thread, {"thread": NAMES["thread_id"]}],
        )
        shown: dict[str, Any] = {"graph": {"nodes": [], "edges": []}, "graph_xray": {}, "schemas": {}}
        keep_graphs(connection, [{"dag_id": DAG, "graph_id": "agent", "shown": {**shown, "subgraphs": {"inner": {}}}}])
    async with AsyncExitStack() as stack:
        clients, apps = [], []
        for changes in (PRODUCTION, PRODUCTION | {"environment": "development"}):
            app = await stack.enter_async_context(application(database_url, airflow, **changes))
            apps.append(app)
            clients.append(await stack.enter_async_context(client_of(app)))
        production, development = clients
        ulla, anna = await sign_in(production, "ulla"), await sign_in(production, "anna")
        made = []
        for headers, scope in ((ulla, "read"), (anna, "trigger"), (ulla, "read")):
            body = {"name": scope, "scopes": [scope]}
            made.append((await production.post("/tokens", json=body, headers=headers)).json())
        limit = {"subject": "user:felix", "kind": "batch_size", "limit": 50}
        assert (await production.put("/limits/a-limit", json=limit, headers=anna)).is_success
        template = {"name": "of-ulla", "definition": TEMPLATE}
        assert (await production.post("/templates", json=template, headers=ulla)).status_code == 201
        picture = await production.post("/images", headers=ulla, **EXAMPLES["POST", "/images"])
        ids = NAMES | {
            "trace_id": trace_id, "notification_id": notification_id, "token_id": made[2]["id"],
            "image_id": picture.json()["image_id"], "question_id": question_id,
        }  # fmt: skip
        given = {"reader": made[0]["token"], "starter": made[1]["token"], "forged": "forged"}
        tokens = {caller: f"Bearer {token}" for caller, token in given.items()}
        ending = asyncio.create_task(end_streams(apps))
        yield World(production, development, tokens, ids, engine)
        ending.cancel()


async def end_streams(apps: list[FastAPI]) -> None:
    """End streams of threads, which go on with the next run, as a process does that shuts down."""
    while True:
        await asyncio.sleep(0.05)
        for app in apps:
            app.state.application.langgraph.feed.close()


def operations() -> list[tuple[str, str]]:
    """The operations of the OpenAPI documents."""
    settings = make_settings("postgresql+psycopg://nowhere/x")
    found = [
        (method.upper(), prefix + path)
        for prefix, app in (("", create_app(settings)), (langgraph.PATH, langgraph.make_app(settings)))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ]
    return sorted(found, key=lambda one: (one[1], one[0]))


def test_each_operation_has_a_rule() -> None:
    assert sorted(rules()) == sorted(operations()), "add a row to MATRIX, and a request to EXAMPLES if it needs a body"


async def test_who_may_do_what(world: World) -> None:
    found, expected = [], []
    for method, path in operations():
        outcomes = ""
        for caller in CALLERS:
            response = await world.ask(caller, method, path)
            outcomes += outcome_of(response, f"{caller}: {method} {path}")
        found.append(f"{method} {path} {outcomes}")
        expected.append(f"{method} {path} {rules().get((method, path))}")
    assert found == expected


def outcome_of(response: httpx.Response, about: str) -> str:
    status = response.status_code
    if status in (401, 403, 404):
        assert response.headers["content-type"] == "application/problem+json", about
        assert ("www-authenticate" in response.headers) == (status == 401), about
        return str(status)[-1]
    if status == 422 and "that you may see" in response.json()["detail"]:
        return "4"
    # 409: what a caller before has done. 422: an address of a picture that may not be fetched, whoever asks.
    fine = status < 400 or status == 409 or (status == 422 and response.json()["detail"].startswith("?url"))
    assert fine, f"{about}: {status} {response.text}"
    return "+"
