"""The data in a structured answer is found, whatever a server makes of it, and half of it is never taken for all."""

import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from backend.agents.answer_data import candidates
from backend.agents.output_schema import DataError, load_output_schema
from backend.agents.structured import ask
from tests.kit.openai.server import OpenAIServer
from tests.unit.models.test_model_modes import SHIPS, call

DATA = {"ships": 2, "at": {"sea": [1, "{"]}}
TEXT = json.dumps(DATA)
PRETTY = json.dumps(DATA, indent=2)
BOM = "\ufeff"
FENCE = "```"


def called(**more: Any) -> AIMessage:
    return AIMessage("", **more)


ANSWERS: dict[str, Any] = {
    "plain": TEXT,
    "with white space": f"\n\n  {PRETTY}\n",
    "with a byte order mark": f"{BOM}{TEXT}",
    "with a mark and a line": f" {BOM}\n{TEXT}{BOM}",
    "with invisible characters": f"\u200b{TEXT}\u2060",
    "reasoned": f"<think>Are there 2 ships?</think>{TEXT}",
    "reasoned at length": f"<think>\n{{'ships': 1}} or {{\"ships\": 3}}?\n</think>\n\n{PRETTY}",
    "reasoned with the end alone": f'Perhaps {{"ships": 3}}.\n</think>\n{TEXT}',
    "reasoned and fenced": f"<think>Hm.</think>\nHere it is:\n{FENCE}json\n{PRETTY}\n{FENCE}\nDone.",
    "reasoned with a mark": f"{BOM}<think>\nHm.\n</think>\n\n{BOM}{TEXT}",
    "otherwise reasoned": f"<thinking>Hm.</thinking>{TEXT}",
    "in capitals": f"<THINK>Hm.</THINK>{TEXT}",
    "no reasoning at all": f"<think>\n\n</think>\n\n{TEXT}",
    "fenced": f"{FENCE}json\n{PRETTY}\n{FENCE}",
    "fenced without a language": f"{FENCE}\n{TEXT}\n{FENCE}",
    "fenced in capitals": f"{FENCE}JSON\n{TEXT}\n{FENCE}",
    "fenced on one line": f"{FENCE}json {TEXT} {FENCE}",
    "fenced with tildes": f"~~~json\n{TEXT}\n~~~",
    "fenced with four": f"{FENCE}`json\n{TEXT}\n{FENCE}`",
    "fenced and indented": f"Here:\n\n  {FENCE}json\n  {TEXT}\n  {FENCE}\n",
    "fenced with Windows' lines": f"Here:\r\n{FENCE}json\r\n{TEXT}\r\n{FENCE}\r\n",
    "a fence that stays open": f"{FENCE}json\n{PRETTY}\n",
    "prose before a fence": f"Sure! Here is the JSON you asked for:\n\n{FENCE}json\n{PRETTY}\n{FENCE}",
    "prose after a fence": f"{FENCE}json\n{PRETTY}\n{FENCE}\n\nLet me know if you need anything else.",
    "prose around a fence": f"Sure!\n{FENCE}json\n{PRETTY}\n{FENCE}\nThe `ships` were counted.",
    "prose around braces": f"The result is {TEXT} as requested.",
    "the last of two fences": f"{FENCE}json\n{{\"ships\": \"?\"}}\n{FENCE}\nNo:\n{FENCE}json\n{TEXT}\n{FENCE}",
    "the fitting one of two fences": f"{FENCE}json\n{TEXT}\n{FENCE}\nAs in\n{FENCE}sh\nls -l\n{FENCE}",
    "a word before": f"json\n{TEXT}",
    "JSON in a JSON text": json.dumps(TEXT),
    "parts": [{"type": "text", "text": TEXT[:9]}, {"type": "text", "text": TEXT[9:]}],
    "parts that are texts": [TEXT[:9], TEXT[9:]],
    "parts of the Responses API": [{"type": "output_text", "text": TEXT, "annotations": []}],
    "parts without a type": [{"text": TEXT}],
    "parts with values": [{"type": "text", "text": {"value": TEXT, "annotations": []}}],
    "parts after reasoning": [{"type": "reasoning", "text": '{"ships": 3}'}, {"type": "text", "text": TEXT}],
    "parts after thinking": [{"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "text", "text": TEXT}],
    "nested parts": [{"type": "message", "content": [{"type": "output_text", "text": TEXT}]}],
    "a part that is JSON": [{"type": "json", "json": DATA}],
    "a tool call": called(tool_calls=[{"name": "Output", "args": DATA, "id": "1"}]),
    "a tool call and prose": AIMessage("Calling.", tool_calls=[{"name": "Output", "args": DATA, "id": "1"}]),
    "two tool calls": called(
        tool_calls=[{"name": "Output", "args": DATA, "id": "1"}, {"name": "Output", "args": {"ships": 9}, "id": "2"}]
    ),
    "a function call of old": called(additional_kwargs={"function_call": {"name": "Output", "arguments": TEXT}}),
    "a tool call in words": f'<tool_call>\n{{"name": "Output", "arguments": {TEXT}}}\n</tool_call>',
    "a tool call as JSON": json.dumps({"name": "Output", "parameters": DATA}),
    "an unreadable tool call": called(
        invalid_tool_calls=[{"name": "Output", "args": f"{FENCE}json\n{TEXT}\n{FENCE}", "id": "1", "error": None}]
    ),
    "fences inside of the data": json.dumps({**DATA, "note": f"{FENCE}py\n1\n{FENCE}"}),
    "reasoning inside of the data": json.dumps({**DATA, "note": "<think>a</think>"}),
}  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_the_data_is_found(answer: Any) -> None:
    reply = answer if isinstance(answer, AIMessage) else AIMessage(answer)
    schema = load_output_schema({**SHIPS, "properties": {"ships": {"type": "integer"}, "at": {"type": "object"}}})
    fitting = []
    for data in candidates(reply):
        try:
            fitting.append(schema.fit(data))
        except DataError:
            continue
    assert {key: fitting[0][key] for key in DATA} == DATA


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "it is empty"),
        ("  \n", "it is empty"),
        (None, "it is empty"),
        ("There are two.", "it is no JSON: "),
        (TEXT[:-2], "it is no JSON: "),
        ('{"at": {"ships": 2}, "on": ', "it is no JSON: "),
        (f"{FENCE}json\n{TEXT[:-2]}\n{FENCE}", "it is no JSON: "),
        (f"{FENCE}json\n{{\"at\": {{\"ships\": 2}}, ", "it is no JSON: "),
        (f"<think>{TEXT}", "it is empty"),
        (f"<think>{TEXT}</think>", "it is empty"),
        ('{"ships": NaN}', "it is no JSON: NaN is no JSON value"),
        ('{"ships": -Infinity}', "it is no JSON: -Infinity is no JSON value"),
        ('First {"ships": 1}, then {"ships": 2}.', "it is no JSON: "),
        ("[" * 100_000, "it is nested too deeply"),
        ([{"type": "reasoning", "text": TEXT}], "it is empty"),
    ],
)  # fmt: skip
def test_what_is_no_data(answer: Any, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        list(candidates(AIMessage("" if answer is None else answer)))
    assert str(caught.value).startswith(problem)


async def test_a_repair_says_what_the_form_is(openai_server: OpenAIServer) -> None:
    openai_server.script(content="There are two ships.")
    repaired = f'<think>Oh.</think>\n{FENCE}\n{{"ships": 2}}\n{FENCE}'
    openai_server.script(contains="fits this JSON Schema", content=repaired)
    assert await ask(call(openai_server), [HumanMessage("How many?")], load_output_schema(SHIPS)) == {"ships": 2}
    assert len(openai_server.requests) == 2
