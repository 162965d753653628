"""A refusal of the way in which a model is asked is told from all other errors, by the words of many servers."""

from typing import Any

import openai
import pytest

from backend.models.openai_chat import openai_chat
from backend.models.refusals import Feature, is_about_one_schema, refused_feature
from tests.kit.openai.refusals import FUNCTION_CALLING, JSON_MODE, JSON_SCHEMA, OTHER_ERRORS, STREAM_USAGE, STREAMING
from tests.kit.openai.server import OpenAIServer

Case = tuple[Feature | None, set[Feature], tuple[int, Any], str]

STREAMED: set[Feature] = {"streaming", "stream_usage", "json_schema"}
TOOLS: set[Feature] = {"function_calling"}
JSON: set[Feature] = {"json_mode"}
CASES: list[Case] = [
    *(("streaming", STREAMED, given, f"streaming: {name}") for name, given in STREAMING.items()),
    *(("stream_usage", STREAMED, given, f"usage: {name}") for name, given in STREAM_USAGE.items()),
    *(("json_schema", STREAMED, given, f"schema: {name}") for name, given in JSON_SCHEMA.items()),
    *(("function_calling", TOOLS, given, f"tools: {name}") for name, given in FUNCTION_CALLING.items()),
    *(("json_mode", JSON, given, f"json: {name}") for name, given in JSON_MODE.items()),
    *((None, {*STREAMED, *TOOLS}, given, f"other: {name}") for name, given in OTHER_ERRORS.items()),
]  # fmt: skip


async def error_of(server: OpenAIServer, status: int, body: Any) -> Exception:
    server.script(status=status, body=body)
    model = openai_chat("m", base_url=server.base_url, api_key="test", max_retries=0)
    with pytest.raises(openai.APIError) as caught:
        await model.ainvoke("hello", stream=True)
    return caught.value


@pytest.mark.filterwarnings("ignore:.*structured output feature")  # LangChain's advice to set another method
@pytest.mark.parametrize(("feature", "used", "given"), [case[:3] for case in CASES], ids=[case[3] for case in CASES])
async def test_what_is_refused(
    openai_server: OpenAIServer, feature: Feature | None, used: set[Feature], given: tuple[int, Any]
) -> None:
    error = await error_of(openai_server, *given)
    assert refused_feature(error, used) == feature
    assert refused_feature(error, ()) is None
    assert is_about_one_schema(error) is (given == JSON_SCHEMA["a schema"])
