"""What real servers say when they refuse the way in which a model is asked: the feature, the status and the body."""

from typing import Any

Refusal = tuple[str, int, Any]


def openai_error(message: str, param: str | None = None, code: str | None = "unsupported_value") -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


VERIFY = (
    "Your organization must be verified to stream this model. Please go to: "
    "https://platform.openai.com/settings/organization/general and click on Verify Organization."
)

STREAMING: dict[str, tuple[int, Any]] = {
    "openai unverified": (400, openai_error(VERIFY, "stream")),
    "openai o1": (
        400,
        openai_error(
            "Unsupported value: 'stream' does not support true with this model. Only the default (false) value is "
            "supported.",
            "stream",
        ),
    ),
    "a word": (400, {"error": "stream is not supported"}),
    "a gateway": (501, {"detail": "Streaming not implemented"}),
    "fastapi": (422, {"detail": [{"loc": ["body", "stream"], "msg": "Extra inputs are not permitted"}]}),
    "pydantic": (422, {"detail": [{"loc": ["body", "stream"], "msg": "Input should be False"}]}),
    "an unknown argument": (400, openai_error("Unrecognized request argument supplied: stream", None, None)),
    "bedrock": (400, {"message": "The model doesn't support tool use in streaming mode."}),
    "forbidden": (403, {"error": {"message": "Streaming is disabled for this deployment.", "code": "Forbidden"}}),
    "text": (400, "This endpoint cannot stream responses"),
}
STREAM_USAGE: dict[str, tuple[int, Any]] = {
    "an unknown argument": (400, openai_error("Unrecognized request argument supplied: stream_options", None, None)),
    "fastapi": (422, {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]}),
    "a sentence": (400, {"message": "stream_options is not supported by this model"}),
}
JSON_SCHEMA: dict[str, tuple[int, Any]] = {
    "openai": (
        400,
        openai_error(
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model. Learn more "
            "about supported models at the Structured Outputs guide: https://platform.openai.com/docs/guides",
            None,
            None,
        ),
    ),
    "deepseek": (400, openai_error("This response_format type is unavailable now", None, "invalid_request_error")),
    "groq": (400, openai_error("This model does not support response format `json_schema`.", "response_format", None)),
    "llama.cpp": (
        400,
        {"error": {"code": 400, "message": 'response_format type must be one of "text" and "json_object", but got: x'}},
    ),
    "fastapi": (
        422,
        {"detail": [{"loc": ["body", "response_format", "type"], "msg": "Input should be 'text' or 'json_object'"}]},
    ),
    "an unknown argument": (400, openai_error("Unrecognized request argument supplied: response_format", None, None)),
    "vllm": (400, {"object": "error", "message": "Guided decoding is not supported: guided_json", "code": 400}),
    "a schema": (
        400,
        openai_error(
            "Invalid schema for response_format 'Output': In context=(), 'additionalProperties' is required to be "
            "supplied and to be false.",
            "response_format",
            None,
        ),
    ),
}
FUNCTION_CALLING: dict[str, tuple[int, Any]] = {
    "ollama": (400, {"error": "registry.ollama.ai/library/gemma:2b does not support tools"}),
    "vllm": (
        400,
        {
            "object": "error",
            "message": '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
            "code": 400,
        },
    ),
    "openrouter": (404, {"error": {"message": "No endpoints found that support tool use.", "code": 404}}),
    "an unknown argument": (400, openai_error("Unrecognized request argument supplied: tools", None, None)),
    "a thinking model": (400, openai_error("deepseek-reasoner does not support this tool_choice", None, None)),
}
JSON_MODE: dict[str, tuple[int, Any]] = {
    "lm studio": (400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}),
    "a sentence": (400, {"message": "json mode is not supported for this model"}),
}
OTHER_ERRORS: dict[str, tuple[int, Any]] = {
    "a wrong value": (400, openai_error("Invalid value for 'temperature'.", "temperature", None)),
    "no such model": (404, openai_error("The model `x` does not exist.", None, "model_not_found")),
    "a key": (401, openai_error("Incorrect API key provided: streaming.", None, "invalid_api_key")),
    "too long": (
        400,
        openai_error("The maximum context length is 10 tokens.", None, "context_length_exceeded"),
    ),
    "a prompt that names the feature": (400, openai_error("Your prompt about streams was too rude.", None, None)),
}
