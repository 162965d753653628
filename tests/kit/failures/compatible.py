"""Failures of other providers: those with OpenAI's protocol and their own bodies, and those with other protocols."""

from __future__ import annotations

from tests.kit.failures.case import Case, claude, error, final, google, overflow, passing, vllm

S0 = (
    "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded token "
    "rate"
)

COMPATIBLE = [
    Case(
        "Azure: a day",
        "rate_limit",
        {
            "status": 429,
            "body": error(
                f"{S0} limit of your current OpenAI S0 pricing tier. Please retry after 86400 seconds.", None, "429"
            ),
            "headers": {"retry-after": "86400"},
        },
        ("reschedule",),
        (),
        None,
    ),
    passing(
        "Azure: milliseconds",
        "rate_limit",
        429,
        error(f"{S0} limit.", None, "429"),
        2.5,
        headers={"retry-after-ms": "2500", "retry-after": "3"},
    ),
    passing(
        "Azure: a wait in words",
        "rate_limit",
        429,
        error(f"{S0} limit. Please retry after 9 seconds.", None, "429"),
        9.0,
    ),
    final(
        "Azure: wrong key",
        "auth",
        401,
        error("Access denied due to invalid subscription key or wrong API endpoint.", None, "401"),
    ),
    final("Azure: firewall", "auth", 403, error("Access denied due to Virtual Network/Firewall rules.", None, "403")),
    final(
        "Azure: no deployment",
        "bad_request",
        404,
        error("The API deployment for this resource does not exist.", None, "DeploymentNotFound"),
    ),
    final(
        "Azure: filter",
        "content_filter",
        400,
        error(
            "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
            None,
            "content_filter",
            status=400,
            innererror={
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {"violence": {"filtered": True}},
            },
        ),
    ),
    passing(
        "Azure: inside", "server", 500, error("Backend returned unexpected response.", None, "InternalServerError")
    ),
    overflow(
        "vLLM: context",
        400,
        vllm(
            "This model's maximum context length is 32768 tokens. However, you requested 41648 "
            "tokens (37552 in the messages, 4096 in the completion). Please reduce the length of the messages or "
            "completion.",
            "BadRequestError",
            400,
        ),
    ),
    overflow(
        "vLLM: no room for an answer", 400, vllm("max_tokens must be at least 1, got -186.", "BadRequestError", 400)
    ),
    final("vLLM: no such model", "bad_request", 404, vllm("The model `x` does not exist.", "NotFoundError", 404)),
    passing("vLLM: dead engine", "server", 500, vllm("EngineCore encountered an issue.", "InternalServerError", 500)),
    overflow(
        "llama.cpp: context",
        400,
        error(
            "request (14429 tokens) exceeds the available context size (8192 tokens), try increasing it",
            "exceed_context_size_error",
            400,
            n_prompt_tokens=14429,
            n_ctx=8192,
        ),
    ),
    passing("llama.cpp: loading", "server", 503, error("Loading model", "unavailable_error", 503)),
    final("llama.cpp: wrong key", "auth", 401, error("Invalid API Key", "authentication_error", 401)),
    overflow(
        "LiteLLM: context",
        400,
        error("litellm.ContextWindowExceededError: litellm.BadRequestError: too long", None, "400"),
    ),
    passing(
        "LiteLLM: throttled",
        "rate_limit",
        429,
        error("litellm.RateLimitError: no deployments available", "throttling_error", "429"),
    ),
    final(
        "LiteLLM: budget",
        "quota",
        400,
        error("Budget has been exceeded! Current cost: 10.1, Max budget: 10.0", "budget_exceeded", "400"),
    ),
    final(
        "OpenRouter: credits",
        "quota",
        402,
        error("This request requires more credits, or fewer max_tokens.", None, 402),
    ),
    final("OpenRouter: a day's requests", "quota", 429, error("Rate limit exceeded: free-models-per-day", None, 429)),
    Case(
        "OpenRouter: an error with status 200",
        "server",
        {"body": error("Provider returned error", None, 502)},
        whole=True,
    ),
    final("DeepSeek: balance", "quota", 402, error("Insufficient Balance", "unknown_error", "invalid_request_error")),
    overflow(
        "Groq: too large for a minute",
        413,
        error(
            "Request too large for model `llama-3.1-8b-instant` on tokens per "
            "minute (TPM): Limit 6000, Requested 7234, please reduce your message size",
            "tokens",
            "rate_limit_exceeded",
        ),
    ),
    passing(
        "Groq: minutes and seconds",
        "rate_limit",
        429,
        error("Rate limit reached for model. Please try again in 0m38.4s.", "tokens", "rate_limit_exceeded"),
        38.4,
    ),
    final(
        "Groq: no tool call",
        "invalid_output",
        400,
        error("Failed to call a function. Please adjust your prompt.", "invalid_request_error", "tool_use_failed"),
    ),
    passing("Groq: no capacity", "rate_limit", 498, error("Flex tier capacity exceeded", "invalid_request_error")),
    passing(
        "Google: a delay among the details",
        "rate_limit",
        429,
        google(
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota.",
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "53s"},
        ),
        53.0,
    ),
    final(
        "Google: wrong key",
        "auth",
        400,
        google(
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"},
        ),
    ),
    passing("Google: unavailable", "server", 503, google(503, "UNAVAILABLE", "The model is overloaded.")),
    overflow(
        "Google: context",
        400,
        google(
            400, "INVALID_ARGUMENT", "The input token count (1200) exceeds the maximum number of tokens allowed (1000)."
        ),
    ),
    overflow(
        "Mistral: context",
        400,
        {
            "object": "error",
            "message": "Prompt contains 40000 tokens and 0 draft tokens, too "
            "large for model with 32768 maximum context length",
            "type": "invalid_request_prompt",
            "code": "3051",
        },
    ),
    passing(
        "Mistral: limit",
        "rate_limit",
        429,
        {
            "object": "error",
            "message": "Requests rate limit exceeded",
            "type": "rate_limited",
            "param": None,
            "code": "1300",
        },
    ),
]

OTHERS = [
    passing(
        "Anthropic: limit",
        "rate_limit",
        429,
        claude("rate_limit_error", "This request would exceed your rate limit"),
        12.0,
        headers={"retry-after": "12", "anthropic-ratelimit-tokens-remaining": "0"},
        speaks="anthropic",
    ),
    passing(
        "Anthropic: overloaded",
        "server",
        529,
        claude("overloaded_error", "Overloaded"),
        headers={"x-should-retry": "true"},
        speaks="anthropic",
    ),
    passing("Anthropic: inside", "server", 500, claude("api_error", "Internal server error"), speaks="anthropic"),
    passing(
        "Anthropic: too late", "timeout", 504, claude("timeout_error", "Request timed out"), 0.5, speaks="anthropic"
    ),
    final("Anthropic: wrong key", "auth", 401, claude("authentication_error", "invalid x-api-key"), speaks="anthropic"),
    final(
        "Anthropic: no right",
        "auth",
        403,
        claude("permission_error", "Your API key lacks permission"),
        speaks="anthropic",
    ),
    final(
        "Anthropic: no such model", "bad_request", 404, claude("not_found_error", "model: claude-x"), speaks="anthropic"
    ),
    final(
        "Anthropic: too large",
        "context_length",
        413,
        claude("request_too_large", "Request exceeds the maximum size"),
        speaks="anthropic",
    ),
    final(
        "Anthropic: prompt",
        "context_length",
        400,
        claude("invalid_request_error", "prompt is too long: 214315 tokens > 200000 maximum"),
        speaks="anthropic",
    ),
    final(
        "Anthropic: prompt and answer",
        "context_length",
        400,
        claude(
            "invalid_request_error",
            "input length and `max_tokens` "
            "exceed context limit: 178959 + 64000 > 200000, decrease input length or `max_tokens` and try again",
        ),
        speaks="anthropic",
    ),
    final(
        "Anthropic: credit",
        "quota",
        400,
        claude(
            "invalid_request_error",
            "Your credit balance is too low to access the "
            "Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.",
        ),
        speaks="anthropic",
    ),
    Case(
        "Anthropic: overloaded in mid-stream",
        "server",
        {"error_after": 3, "error": {"type": "overloaded_error", "message": "Overloaded"}},
        speaks="anthropic",
    ),
    Case("Anthropic: cut stream", "server", {"cut_after": 4}, speaks="anthropic"),
    Case("Anthropic: stream that ends in order", "server", {"end_after": 4}, speaks="anthropic"),
    final("Ollama: no such model", "bad_request", 404, {"error": "model 'llama' not found"}, speaks="ollama"),
    passing(
        "Ollama: runner died",
        "server",
        500,
        {"error": "llama runner process has terminated: exit status 2"},
        speaks="ollama",
    ),
    passing(
        "Ollama: busy",
        "server",
        503,
        {"error": "server busy, please try again. maximum pending requests exceeded"},
        speaks="ollama",
    ),
    final(
        "Ollama: context",
        "context_length",
        400,
        {"error": "the input length exceeds the context length"},
        speaks="ollama",
    ),
    Case(
        "Ollama: error in mid-stream",
        "server",
        {"error_after": 2, "error": {"message": "an error was encountered while running the model: CUDA error"}},
        speaks="ollama",
    ),
    Case("Ollama: cut stream", "server", {"cut_after": 2}, speaks="ollama"),
    Case(
        "Ollama: nobody listens",
        "server",
        actions=("retry",) * 3 + ("task_retry",),
        waits=(1.0, 2.0, 4.0),
        speaks="ollama",
        address="http://127.0.0.1:1",
    ),
]
