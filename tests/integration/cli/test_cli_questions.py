"""Questions and answers from a shell."""

import json
from pathlib import Path

import pytest

from tests.integration.api.test_questions import Asker, asker
from tests.integration.cli.test_cli_tokens import address, airflow, shell_of

__all__ = ["address", "airflow", "asker"]  # fixtures


async def test_questions_are_listed_and_answered(tmp_path: Path, address: str, asker: Asker) -> None:
    run = asker.run()
    first, second, third = asker.ask(run, "How many\x1b[2J boats?", ..., "What else?")
    ulla = await shell_of("ulla", tmp_path / "ulla", address)
    listed = await ulla.run("questions", "--dag", "visual_ai_workflow")
    assert listed.code == 0, listed.err
    assert [line.split()[0] for line in listed.out.splitlines()[1:]] == [first, second, third]
    assert "How many[2J boats?" in listed.out
    done = await ulla.run("answer", first, "--json-answer", '{"boats": 3}', "--json")
    assert json.loads(done.out)["answer"] == {"boats": 3}, done.err
    assert (await ulla.run("answer", second, "--approve")).code == 0
    assert (await ulla.run("answer", third, "Nothing.")).code == 0
    late = await ulla.run("answer", third, "Something.")
    assert late.code == 2
    assert "ulla has answered this question" in late.err
    assert "No questions." in (await ulla.run("questions")).err
    answered = await ulla.run("questions", "--state", "answered", "--json")
    assert [json.loads(line)["answer"] for line in answered.out.splitlines()] == [{"boats": 3}, None, "Nothing."]


async def test_a_question_is_handed_on(tmp_path: Path, address: str, asker: Asker) -> None:
    (question,) = asker.ask(asker.run(), "Who?")
    ulla = await shell_of("ulla", tmp_path / "ulla", address)
    unknown = await ulla.run("assign", question, "nobody")
    assert (unknown.code, "no active user 'nobody'" in unknown.err) == (2, True)
    done = await ulla.run("assign", question, "uwe", "otto", "--json")
    assert json.loads(done.out)["assignees"] == ["uwe", "otto"], done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either the answer's TEXT"),
        (["a text", "--approve"], "give either the answer's TEXT"),
        (["--json-answer", "{"], "--json-answer: not valid JSON"),
    ],
)
async def test_an_answer_is_given_in_one_way(tmp_path: Path, address: str, arguments: list[str], said: str) -> None:
    ulla = await shell_of("ulla", tmp_path / "ulla", address)
    done = await ulla.run("answer", "00000000-0000-0000-0000-000000000000", *arguments)
    assert done.code == 2
    assert said in done.err
