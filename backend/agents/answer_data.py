"""Finds the data in a model's structured answer, whatever is around it.

Servers differ in what they make of a request for JSON. The data may be the arguments of a tool call, the whole text, a
code fence in prose, or what follows a model's reasoning, and the text may come in parts. Data that was cut off is never
completed, and of nested data no inner part is taken for the whole.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from langchain_core.messages import AIMessage

from backend.agents.output_schema import DataError

_REASONING = r"think|thinking|thought|reasoning|reflection|scratchpad"
_REASONED = re.compile(rf"(?is)<({_REASONING})>.*?(?:</\1>|\Z)")
_REASONING_END = re.compile(rf"(?is)\A.*</(?:{_REASONING})>")
"""Some chat templates put the opening tag into the prompt, so that only the closing one is in the answer."""
_FENCE = re.compile(r"(?s)(`{3,}|~{3,})[ \t]*\w*\s*(.*?)\s*\1(?!\w)")
_OPEN_FENCE = re.compile(r"(?s)\A\s*(?:`{3,}|~{3,})[ \t]*\w*\s*(.*)\Z")
_TOOL_CALL = re.compile(r"(?s)<tool_call>\s*(.*?)\s*</tool_call>")
_INVISIBLE = "\ufeff\u200b\u2060\x00"
_TEXT_KEYS = ("text", "output_text", "content")
_NO_ANSWER = frozenset({"reasoning", "thinking", "redacted_thinking", "reasoning_content", "refusal", "tool_use"})
_ARGUMENTS = ("arguments", "parameters", "input")


def candidates(reply: AIMessage) -> Iterator[Any]:
    """What may be the data of an answer, the likeliest first. Raises `DataError` if there is none."""
    if reply.tool_calls:
        yield reply.tool_calls[0]["args"]
        return
    problem: DataError | None = None
    found = False
    for text in _texts(written(reply)):
        try:
            data = read_json(text)
        except DataError as error:
            problem = problem or error
            continue
        found = True
        yield data
        if isinstance(data, dict) and len(data) == 2 and "name" in data:
            # A tool call that the server has not recognised as one.
            for key in _ARGUMENTS:
                if isinstance(data.get(key), dict):
                    yield data[key]
    if not found:
        raise problem or DataError("it is empty, or holds nothing but reasoning")


def written(reply: AIMessage) -> str:
    """What the model has written: its text, or the arguments of its tool call."""
    if reply.invalid_tool_calls:
        return reply.invalid_tool_calls[0]["args"] or ""
    if reply.tool_calls:
        return json.dumps(reply.tool_calls[0]["args"], ensure_ascii=False)
    called = reply.additional_kwargs.get("function_call")
    if isinstance(called, Mapping) and isinstance(called.get("arguments"), str) and not reply.content:
        return str(called["arguments"])
    return _text_of(reply.content)


def read_json(text: str) -> Any:
    """The value of a JSON text. Raises `DataError` for anything else, as for NaN and infinities."""
    try:
        data = json.loads(text, parse_constant=_refuse)
        # Some models answer with JSON in a JSON string.
        if isinstance(data, str) and data.lstrip().startswith("{"):
            with suppress(ValueError):
                data = json.loads(data, parse_constant=_refuse)
    except ValueError as error:
        raise DataError(f"it is no JSON: {error}") from None
    except RecursionError:
        raise DataError("it is nested too deeply") from None
    return data


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")


def _texts(text: str) -> Iterator[str]:
    """The texts that may be JSON: the whole without reasoning, what is in fences, and what is between braces."""
    text = text.strip(_INVISIBLE + " \t\r\n")
    if not text.startswith(("{", "[")):  # or reasoning would be sought inside of the data
        text = _REASONING_END.sub("", _REASONED.sub("", text)).strip(_INVISIBLE + " \t\r\n")
    if text:
        yield text
    if text.startswith(("{", "[")):
        return
    fenced = [match[2].strip() for match in _FENCE.finditer(text)]
    if not fenced and (opened := _OPEN_FENCE.match(text)):
        fenced = [opened[1].strip()]
    # A model that corrects itself does so further down.
    yield from reversed([*fenced, *(match[1] for match in _TOOL_CALL.finditer(text))])
    if (begin := text.find("{")) >= 0 and (end := text.rfind("}")) > begin:
        yield text[begin : end + 1]


def _text_of(content: Any) -> str:
    """The text of a content, which may come in parts, without those that are no answer."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(map(_text_of, content))
    if not isinstance(content, Mapping) or content.get("type") in _NO_ANSWER:
        return ""
    for key in _TEXT_KEYS:
        part = content.get(key)
        if isinstance(part, Mapping):
            part = part.get("value")
        if isinstance(part, str | list):
            return _text_of(part)
    inner = content.get("json")
    return "" if inner is None else json.dumps(inner, ensure_ascii=False)
