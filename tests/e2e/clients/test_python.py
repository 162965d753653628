"""LangGraph's own clients against the whole stack: what they call, and what they get."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import Command
from langgraph_sdk import get_client

from tests.kit.documents.snippets import snippet
from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import wait_until
from tests.kit.processes.stack_processes import kill_task

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

INPUT: dict[str, Any] = {"messages": [], "mood": "new", "steps": []}
STEPS = ["greeted", "weighed", "asked", "closed"]


@pytest.fixture(scope="module")
def headers(backend: httpx.Client) -> dict[str, str]:
    return {"Authorization": backend.headers["authorization"]}


@pytest.fixture(scope="module")
def address(backend: httpx.Client) -> str:
    return str(backend.base_url).rstrip("/") + "/langgraph"


@pytest.fixture
async def client(address: str, headers: dict[str, str]) -> AsyncIterator[Any]:
    """Its annotations are narrower than what it takes and returns."""
    async with get_client(url=address, api_key=None, headers=headers) as client:
        yield client


async def parts(stream: Any) -> list[tuple[str, Any]]:
    return [(part.event, part.data) async for part in stream]


async def test_a_run_is_streamed_and_goes_on_after_an_answer(client: Any, backend: httpx.Client) -> None:
    thread = (await client.threads.create())["thread_id"]
    modes: Any = ["values", "messages-tuple", "updates", "custom"]
    found = await parts(client.runs.stream(thread, "interview", input=INPUT, stream_mode=modes))
    assert found[0][0] == "metadata"
    assert [data["step"] for event, data in found if event == "custom"] == ["greet", "measure", "ask"]
    said = [data for event, data in found if event == "messages"]
    text = "".join(message["content"] for message, about in said if about["langgraph_node"] == "greet")
    assert text == "Good morning, message 0 is mine."
    [asked] = found[-1][1]["__interrupt__"]
    assert asked["value"] == "Shall I go on?"

    paused = await client.threads.get(thread)
    assert paused["status"] == "interrupted"
    assert [one["value"] for task in paused["interrupts"].values() for one in task] == ["Shall I go on?"]
    run = (await client.runs.list(thread))[0]
    assert run["status"] == "interrupted"
    dag_id, dag_run_id = run["metadata"]["dag_id"], run["metadata"]["dag_run_id"]
    place = {"dag_id": dag_id, "dag_run_id": dag_run_id}
    questions = (await asyncio.to_thread(backend.get, "/questions", params=place)).json()["questions"]
    assert [question["subject"] for question in questions] == ["Shall I go on?"]

    await parts(client.runs.stream(thread, "interview", command={"resume": "yes"}, stream_mode="updates"))
    state = await client.threads.get_state(thread)
    assert state["values"]["steps"] == STEPS
    assert (state["next"], state["tasks"]) == ([], [])
    runs = await client.runs.list(thread)
    assert [run["status"] for run in runs] == ["success", "interrupted"]
    assert {run["metadata"]["dag_run_id"] for run in runs} == {dag_run_id}

    def has_succeeded() -> bool:
        return bool(backend.get(f"/workflow-status/{dag_id}/{dag_run_id}").json()["state"] == "success")

    await asyncio.to_thread(wait_until, has_succeeded, timeout=30, what="the run's end")


async def test_a_thread_goes_on_and_branches(client: Any) -> None:
    thread = (await client.threads.create())["thread_id"]
    for text in ("one", "two"):
        await client.runs.wait(thread, "nested", input={"messages": [{"role": "user", "content": text}]})
    history = await client.threads.get_history(thread, limit=50)
    said = [[message["content"] for message in state["values"].get("messages", [])] for state in history]
    assert said[0] == ["one", "From within.", "two", "From within."]
    first = next(state for state, texts in zip(history, said, strict=True) if texts == ["one", "From within."])
    at: Any = first["checkpoint"]
    await client.runs.wait(thread, "nested", input={"messages": [{"role": "user", "content": "other"}]}, checkpoint=at)
    state = await client.threads.get_state(thread)
    assert [message["content"] for message in state["values"]["messages"]][2] == "other"
    copied = (await client.threads.copy(thread))["thread_id"]
    await client.runs.wait(copied, "nested", input={"messages": [{"role": "user", "content": "copied"}]})
    assert len((await client.threads.get_state(copied))["values"]["messages"]) == 6
    assert len((await client.threads.get_state(thread))["values"]["messages"]) == 4


async def test_a_stream_is_resumed_where_it_broke_off(client: Any) -> None:
    thread = (await client.threads.create())["thread_id"]
    run = await client.runs.create(thread, "interview", input=INPUT, stream_mode=["custom", "values"])
    whole, ids = [], []
    async for part in client.runs.join_stream(thread, run["run_id"]):
        if part.id:
            whole.append(part)
            ids.append(part.id)
    assert len(whole) > 5
    rest = [part async for part in client.runs.join_stream(thread, run["run_id"], last_event_id=ids[2]) if part.id]
    assert [(part.event, part.data) for part in rest] == [(part.event, part.data) for part in whole[3:]]


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_threads_are_streamed_by_channels(client: Any, transport: Any, headers: dict[str, str]) -> None:
    async with client.threads.stream(assistant_id="interview", transport=transport, headers=headers) as thread:
        await thread.run.start(input=INPUT)
        snapshots = [snapshot async for snapshot in thread.values]
        assert snapshots
        assert thread.interrupted
        assert [one["value"] for one in thread.interrupts] == ["Shall I go on?"]
        await thread.run.respond("yes")
        assert (await thread.output)["steps"] == STEPS


async def test_messages_tools_subgraphs_and_extensions(client: Any) -> None:
    async with client.threads.stream(assistant_id="interview") as thread:
        await thread.run.start(input=INPUT)
        messages = [message async for message in thread.messages]
        assert ["".join([text async for text in message.text]) for message in messages] == [
            "Good morning, message 0 is mine."
        ]
    async with client.threads.stream(assistant_id="interview") as thread:
        await thread.run.start(input=INPUT)
        assert [event["step"] async for event in thread.extensions["progress"]] == ["greet", "measure", "ask"]
    async with client.threads.stream(assistant_id="searcher") as thread:
        await thread.run.start(input={"messages": [{"role": "human", "content": "tide?"}]})
        [call] = [call async for call in thread.tool_calls]
        assert call.name == "look_up"
        assert (await call.output)["status"] == "success"
    async with client.threads.stream(assistant_id="nested") as thread:
        await thread.run.start(input={"messages": []})
        assert [child async for child in thread.subgraphs]


async def test_a_run_is_cancelled_and_undone(client: Any) -> None:
    async with client.threads.stream(assistant_id="interview") as thread:
        started = await thread.run.start(input=INPUT)
        await client.runs.cancel(thread.thread_id, started["run_id"])
        async with asyncio.timeout(20):
            async for _ in thread.values:
                pass
        assert (await client.runs.get(thread.thread_id, started["run_id"]))["status"] == "interrupted"
    undone = (await client.threads.create())["thread_id"]
    await client.runs.wait(undone, "nested", input={"messages": [{"role": "user", "content": "kept"}]})
    run = await client.runs.create(undone, "interview", input=INPUT)
    await client.runs.join(undone, run["run_id"])
    await client.runs.cancel(undone, run["run_id"], action="rollback")
    state = await client.threads.get_state(undone)
    assert [message["content"] for message in state["values"]["messages"]] == ["kept", "From within."]
    assert [one["run_id"] for one in await client.runs.list(undone) if one["run_id"] == run["run_id"]] == []


@pytest.mark.parametrize("strategy", ["reject", "enqueue", "interrupt"])
async def test_a_second_message_while_the_first_is_answered(client: Any, strategy: Any) -> None:
    thread = (await client.threads.create())["thread_id"]
    one: Any = {"messages": [{"role": "user", "content": "one"}]}
    two: Any = {"messages": [{"role": "user", "content": "two"}]}
    first = await client.runs.create(thread, "nested", input=one)
    if strategy == "reject":
        with pytest.raises(Exception, match="busy"):
            await client.runs.create(thread, "nested", input=two, multitask_strategy=strategy)
        return
    values: Any = await client.runs.wait(thread, "nested", input=two, multitask_strategy=strategy)
    said = [message["content"] for message in values["messages"]]
    status = (await client.runs.get(thread, first["run_id"]))["status"]
    if strategy == "enqueue":
        assert said == ["one", "From within.", "two", "From within."]
        assert status == "success"
    else:
        assert said[-2:] == ["two", "From within."]
        assert status in ("interrupted", "success")


async def test_states_are_written_while_a_question_is_open(client: Any) -> None:
    thread = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread, "interview", input=INPUT)
    await client.threads.update_state(thread, {"mood": "changed"})
    state = await client.threads.get_state(thread)
    assert state["values"]["mood"] == "changed"
    assert state["next"] == ["ask"]
    await client.runs.wait(thread, "interview", command={"resume": "go"})
    assert (await client.threads.get_state(thread))["values"]["steps"] == STEPS


async def test_a_failed_run_says_why(client: Any) -> None:
    thread = (await client.threads.create())["thread_id"]
    began = time.monotonic()
    wrong = {"messages": [{"role": "wizard", "content": "?"}]}
    failed: Any = await client.runs.wait(thread, "interview", input=wrong, raise_error=False)
    assert "wizard" in failed["__error__"]["message"]
    assert time.monotonic() - began < 30  # a person waits: no retry after seconds
    assert (await client.threads.get(thread))["status"] == "error"
    with pytest.raises(Exception, match="no assistant or graph 'nothing'"):
        await client.runs.create(thread, "nothing", input={})


async def test_assistants_have_a_config_and_versions(client: Any) -> None:
    made = await client.assistants.create("made", config={"configurable": {"mark": "!"}}, name="loud")
    assistant = made["assistant_id"]
    assert await client.runs.wait(None, assistant, input={"text": "it"}) == {
        "text": "it said!",
        "access": "threads.create_run",
    }
    await client.assistants.update(assistant, config={"configurable": {"mark": "?"}})
    assert [one["version"] for one in await client.assistants.get_versions(assistant)] == [2, 1]
    values: Any = await client.runs.wait(None, assistant, input={"text": "it"})
    assert values["text"] == "it said?"
    await client.assistants.set_latest(assistant, 1)
    assert (await client.assistants.get(assistant))["config"] == {"configurable": {"mark": "!"}}
    await client.assistants.delete(assistant)
    drawn = await client.assistants.get_graph("interview")
    assert {"greet", "measure", "ask", "hand_over"} <= {node["id"] for node in drawn["nodes"]}
    assert "state_schema" in await client.assistants.get_schemas("interview")
    assert [one["graph_id"] for one in await client.assistants.search(graph_id="interview")] == ["interview"]


async def test_any_workflow_is_an_assistant(client: Any) -> None:
    given = {"query": "What is the total?", "image_url": "sample://invoice"}
    values: Any = await client.runs.wait(None, "visual_ai_workflow", input=given)
    assert values["result"]
    with pytest.raises(Exception, match="image_url"):
        await client.runs.create(None, "visual_ai_workflow", input={"query": 7})


async def test_the_store(client: Any) -> None:
    place = ["talks", uuid.uuid4().hex]
    await client.store.put_item(place, key="a", value={"kind": "note"})
    await client.store.put_item(place, key="b", value={"kind": "memo"})
    found = await client.store.get_item(place, key="a")
    assert (found["value"], found["namespace"]) == ({"kind": "note"}, place)
    assert [one["key"] for one in (await client.store.search_items(place, filter={"kind": "memo"}))["items"]] == ["b"]
    assert place in [[*one] for one in (await client.store.list_namespaces(prefix=place[:1]))["namespaces"]]
    await client.store.delete_item(place, key="a")
    assert await client.store.get_item(place, key="a") is None


async def test_crons_start_turns(client: Any) -> None:
    thread = (await client.threads.create())["thread_id"]
    said = {"messages": [{"role": "user", "content": "It is time."}]}
    cron = await client.crons.create_for_thread(thread, "nested", schedule="* * * * *", input=said)
    yearly = await client.crons.create("nested", schedule="0 0 1 1 *", input=said, metadata={"kind": "yearly"})
    try:
        found = await client.crons.search(metadata={"kind": "yearly"})
        assert [one["cron_id"] for one in found] == [yearly["cron_id"]]
        assert "-01-01T00:00:00" in yearly["next_run_date"]
        assert [one["cron_id"] for one in await client.crons.search(thread_id=thread)] == [cron["cron_id"]]
        changed = await client.crons.update(yearly["cron_id"], schedule="0 0 2 1 *", enabled=False)
        assert (changed["schedule"], changed["enabled"], changed["next_run_date"]) == ("0 0 2 1 *", False, None)
        with pytest.raises(Exception, match="/schedule"):
            await client.crons.create("nested", schedule="every day")
        async with asyncio.timeout(150):
            while "success" not in [run["status"] for run in await client.runs.list(thread)]:  # noqa: ASYNC110  # due soon
                await asyncio.sleep(1)
    finally:
        await client.crons.delete(cron["cron_id"])
        await client.crons.delete(yearly["cron_id"])
    assert (await client.threads.get_state(thread))["values"]["messages"][1]["content"] == "From within."


async def test_a_remote_graph_is_run_like_a_local_one(client: Any) -> None:
    graph = RemoteGraph("searcher", client=client)  # it never closes clients of its own
    asked: Any = {"messages": [{"role": "user", "content": "tide?"}]}
    result = await graph.ainvoke(asked)
    assert result["messages"][-1]["content"] == "It is a word."
    updates = [chunk async for chunk in graph.astream(asked, stream_mode="updates")]
    assert [next(iter(chunk)) for chunk in updates] == ["model", "tools", "model"]
    async with await graph.astream_events(asked, version="v3") as run:
        events = [event["method"] async for event in run]
    assert events[-1] == "lifecycle"


async def test_a_remote_graph_goes_on_with_a_command(client: Any) -> None:
    graph = RemoteGraph("interview", client=client)
    config: Any = {"configurable": {"thread_id": str(uuid.uuid4())}}
    async with await graph.astream_events(INPUT, config=config, version="v3") as run:
        async for _ in run.values:
            if await run.interrupted():
                break
    async with await graph.astream_events(Command(resume="yes"), config=config, version="v3") as run:
        output = await run.output()
    assert output is not None
    assert output["steps"] == STEPS


async def test_a_task_that_is_killed_loses_nothing_of_a_stream(
    client: Any, airflow: httpx.Client, openai_server: OpenAIServer
) -> None:
    openai_server.script(contains="Step 3 of kills.", hold=True)
    thread = (await client.threads.create())["thread_id"]
    found: list[str] = []
    given = {"topic": "kills", "answers": []}
    async for part in client.runs.stream(thread, "five_steps", input=given, stream_mode=["updates"]):
        if part.event == "updates":
            found.append(next(iter(part.data)))
            if len(found) == 2:
                run = (await client.runs.list(thread))[0]["metadata"]
                await asyncio.to_thread(kill_task, airflow, run["dag_id"], run["dag_run_id"], "graph")
    assert [*dict.fromkeys(found)] == [f"step_{number}" for number in range(1, 6)]
    assert (await client.runs.list(thread))[0]["status"] == "success"


def test_the_documents_example_works(address: str, headers: dict[str, str]) -> None:
    token = headers["Authorization"].removeprefix("Bearer ")
    code = snippet("langgraph-client").replace("http://localhost:8000/langgraph", address).replace("<token>", token)
    names: dict[str, Any] = {}
    exec(code.replace('"agent"', '"nested"'), names)  # noqa: S102  # the documents' own code
    names["client"].close()
    assert names["state"]["values"]["messages"][-1]["content"] == "From within."
