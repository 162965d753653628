"""A prompt that is too long is recognised by the words of any server, and other refusals aren't taken for one."""

from typing import Any, cast

import httpx
import openai
import pytest

from backend.core.workflow_error_handler import classify

OVERFLOWS = [
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
    "prompt is too long: 214315 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000",
    "Input tokens exceed the configured limit of 272000 tokens.",
    "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "Input is too long for requested model.",
    "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 512",
    "the request exceeds the available context size. try increasing the context size",
    "request (14429 tokens) exceeds the available context size (8192 tokens), try increasing it",
    "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with context length "
    "of only 4096 tokens, which is not enough. (n_keep: 9000 >= n_ctx: 4096)",
    "The number of tokens to keep from the initial prompt is greater than the context length.",
    "The prompt (total length 5000) is too long to fit into the model (context length 4096).",
    "The decoder prompt (length 40000) is longer than the maximum model length of 32768.",
    "Input length (40000 tokens) exceeds the maximum allowed length (32768 tokens).",
    "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
    "Requested token count exceeds the model's maximum context length of 131072 tokens.",
    "Please reduce the length of the messages or completion.",
    "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000",
    "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
    "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "inputs tokens + max_new_tokens must be <= 8193. Given: 8000 inputs tokens and 1000 max_new_tokens",
    "prompt token count of 150000 exceeds the limit of 128000",
    "Context size has been exceeded.",
    "context window overflow",
    "exceed_context_size_error",
    "litellm.ContextWindowExceededError: too long",
    "the input length exceeds the context length",
    "max_tokens must be at least 1, got -186.",
    "Range of input length should be [1, 30720]",
    "Requested tokens (5000) exceed context window of 4096",
]
OTHERS = [
    "Invalid value for 'temperature'.",
    "max_tokens is too large: 100000. This model supports at most 16384 completion tokens.",
    "Image is too large: 30 MB.",
    "'name' is too long: at most 64 characters.",
    "Invalid 'tools': array too long. Expected an array with maximum length 128.",
    "Unknown parameter: 'context'.",
    "The field `context` is required.",
]


def refused(message: str) -> openai.BadRequestError:
    response = httpx.Response(400, request=httpx.Request("POST", "http://x"), json={"error": {"message": message}})
    # The client has its own copy of httpx.
    return openai.BadRequestError(message, response=cast(Any, response), body={"message": message})


@pytest.mark.parametrize("message", OVERFLOWS)
def test_an_overflow(message: str) -> None:
    assert classify(refused(message)).category == "context_length"


@pytest.mark.parametrize("message", OTHERS)
def test_another_refusal(message: str) -> None:
    assert classify(refused(message)).category == "bad_request"
