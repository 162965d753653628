"""Bodies of error responses as servers send them, with what each means and what a person has to read of it.

Names, keys and addresses in the bodies are made up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from backend.core.workflow_error_handler import Category
from tests.kit.failures.case import HTML_PAGE, Speaks, claude, error, google, vllm

SSE = {"content-type": "text/event-stream"}
PAGE = {"content-type": "text/html"}


@dataclass(frozen=True)
class Body:
    """A response, the category of its error, the words that its message has to contain, and the code that is kept."""

    name: str
    status: int
    body: Any
    category: Category
    words: str
    code: str = ""
    speaks: Speaks = "openai"
    headers: dict[str, str] = field(default_factory=dict)
    request_id: str = ""

    def __str__(self) -> str:
        return self.name


def event(data: str, name: str = "") -> str:
    """One event of a stream."""
    return (f"event: {name}\n" if name else "") + f"data: {data}\n\n"


CLOUDFLARE = (
    "<!DOCTYPE html>\n<!--[if lt IE 7]> <html class='no-js ie6'> <![endif]-->\n<html><head><title>"
    "api.example.com | 502: Bad gateway</title><style>p{margin:0}</style></head>"
    "<body><h1>Bad gateway</h1><p>Ray ID: 8f1</p></body></html>"
)
UPSTREAM = '{"error":{"message":"The provider is out of capacity","type":"overloaded"}}'

BODIES = [
    Body(
        "OpenAI: object",
        400,
        error("Unknown parameter: 'foo'.", "invalid_request_error", "unknown_parameter"),
        "bad_request",
        "Unknown parameter: 'foo'.",
        "unknown_parameter",
    ),
    Body(
        "OpenAI: wrong key",
        401,
        error("Incorrect API key provided: sk-x.", "invalid_request_error", "invalid_api_key"),
        "auth",
        "Incorrect API key provided",
        "invalid_api_key",
    ),
    Body(
        "OpenAI: verification",
        400,
        error("Your organization must be verified to stream this model.", "invalid_request_error", "unsupported_value"),
        "bad_request",
        "must be verified to stream",
        "unsupported_value",
    ),
    Body(
        "Azure: gateway",
        401,
        {"statusCode": 401, "message": "Access denied due to invalid subscription key."},
        "auth",
        "invalid subscription key",
    ),
    Body(
        "Azure: not found",
        404,
        {"error": {"code": "404", "message": "Resource not found"}},
        "bad_request",
        "Resource not found",
    ),
    Body(
        "Azure: filter",
        400,
        error("The response was filtered", None, "content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}),
        "content_filter",
        "was filtered",
        "responsibleaipolicyviolation",
    ),
    Body(
        "Azure: request id",
        500,
        error("The server had an error", None, "InternalServerError"),
        "server",
        "The server had an error",
        headers={"x-request-id": "", "apim-request-id": "apim-1"},
        request_id="apim-1",
    ),
    Body(
        "Anthropic: invalid",
        400,
        claude("invalid_request_error", "max_tokens: Field required"),
        "bad_request",
        "Error code: 400 - max_tokens: Field required",
        "invalid_request_error",
        "anthropic",
        {"x-request-id": ""},
        "req_011CUB2XUHWkFnQzxcKBbjpF",
    ),
    Body(
        "Anthropic: overloaded",
        529,
        claude("overloaded_error", "Overloaded"),
        "server",
        "Overloaded",
        "overloaded_error",
        "anthropic",
    ),
    Body(
        "Anthropic: page",
        502,
        HTML_PAGE.format("502 Bad Gateway"),
        "server",
        "Error code: 502 - 502 Bad Gateway",
        "",
        "anthropic",
        PAGE,
    ),
    Body("Anthropic: text", 400, "upstream refused", "bad_request", "upstream refused", "", "anthropic"),
    Body("Anthropic: empty", 500, "", "server", "Error code: 500 - the response has no body", "", "anthropic"),
    Body(
        "Anthropic: detail",
        422,
        {"detail": [{"loc": ["body", "model"], "msg": "Field required", "type": "missing"}]},
        "bad_request",
        "body.model: Field required",
        "",
        "anthropic",
    ),
    Body(
        "Google: list",
        400,
        google(400, "INVALID_ARGUMENT", "Unable to process input image."),
        "bad_request",
        "Unable to process input image.",
        "invalid_argument",
    ),
    Body(
        "Google: object",
        403,
        {"error": {"code": 403, "message": "Permission denied: Consumer suspended.", "status": "PERMISSION_DENIED"}},
        "auth",
        "Consumer suspended",
        "permission_denied",
    ),
    Body(
        "Google: page",
        404,
        "<!DOCTYPE html><html lang=en><title>Error 404 (Not Found)!!1</title><p>The requested "
        "URL was not found.</html>",
        "bad_request",
        "Error 404 (Not Found)!!1: The requested URL was not found.",
        headers=PAGE,
    ),
    Body(
        "Mistral: validation",
        422,
        {
            "object": "error",
            "message": {
                "detail": [
                    {"type": "extra_forbidden", "loc": ["body", "logit_bias"], "msg": "Extra inputs are not permitted"}
                ]
            },
            "type": "invalid_request_error",
        },
        "bad_request",
        "body.logit_bias: Extra inputs are not permitted",
        "invalid_request_error",
    ),
    Body("Mistral: key", 401, {"detail": "Unauthorized"}, "auth", "Unauthorized"),
    Body(
        "Mistral: gateway",
        401,
        {"message": "Unauthorized", "request_id": "m-7"},
        "auth",
        "Unauthorized",
        "",
        "openai",
        {"x-request-id": ""},
        "m-7",
    ),
    Body(
        "Groq: decommissioned",
        400,
        error("The model `x` has been decommissioned.", "invalid_request_error", "model_decommissioned"),
        "bad_request",
        "has been decommissioned",
        "model_decommissioned",
    ),
    Body(
        "Groq: failed generation",
        400,
        error("Failed to generate JSON.", "invalid_request_error", "json_validate_failed", failed_generation="{"),
        "invalid_output",
        "Failed to generate JSON.",
        "json_validate_failed",
    ),
    Body(
        "Together: model",
        404,
        {
            "id": "o-1",
            "error": {
                "message": "Unable to access model x.",
                "type": "invalid_request_error",
                "param": None,
                "code": "model_not_available",
            },
        },
        "bad_request",
        "Unable to access model x.",
        "model_not_available",
    ),
    Body(
        "Together: text",
        422,
        {"error": "Input validation error: `inputs` must have less than 4 images"},
        "bad_request",
        "must have less than 4 images",
    ),
    Body(
        "OpenRouter: upstream",
        502,
        {
            "error": {
                "message": "Provider returned error",
                "code": 502,
                "metadata": {"raw": UPSTREAM, "provider_name": "Somebody"},
            },
            "user_id": "u",
        },
        "server",
        "Provider returned error (Somebody: The provider is out of capacity)",
    ),
    Body(
        "OpenRouter: credits",
        402,
        error("This request requires more credits.", None, 402),
        "quota",
        "requires more credits",
    ),
    Body(
        "DeepSeek: format",
        422,
        error(
            "Failed to deserialize the JSON body: missing field `role`",
            "invalid_request_error",
            "invalid_request_error",
        ),
        "bad_request",
        "missing field `role`",
    ),
    Body(
        "xAI: code and text",
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "Incorrect API key provided: xa***. You can obtain an API key from the console.",
        },
        "bad_request",
        "You can obtain an API key",
        "client specified an invalid argument",
    ),
    Body(
        "xAI: permission",
        403,
        {"code": "The caller does not have permission", "error": "Your team has no credits."},
        "auth",
        "Your team has no credits.",
    ),
    Body(
        "Cohere: message",
        400,
        {"id": "c-1", "message": "invalid request: temperature must be between 0 and 1"},
        "bad_request",
        "temperature must be between",
    ),
    Body(
        "Cohere: trial",
        429,
        {"message": "You are using a Trial key, which is limited to 20 API calls / minute."},
        "rate_limit",
        "limited to 20 API calls",
    ),
    Body(
        "Bedrock: header",
        400,
        {"message": "Malformed input request: #: required key [messages] not found"},
        "bad_request",
        "required key [messages] not found",
        "validationexception",
        headers={
            "x-amzn-errortype": "ValidationException:http://internal.amazon.com/",
            "x-request-id": "",
            "x-amzn-requestid": "aws-1",
        },
        request_id="aws-1",
    ),
    Body(
        "Bedrock: __type",
        400,
        {"__type": "ThrottlingException", "Message": "Too many requests, please wait."},
        "rate_limit",
        "Too many requests, please wait.",
        "throttlingexception",
    ),
    Body(
        "vLLM: bare",
        400,
        vllm("guided_json is no valid schema", "BadRequestError", 400),
        "bad_request",
        "guided_json is no valid schema",
        "badrequesterror",
    ),
    Body("vLLM: key", 401, {"error": "Unauthorized"}, "auth", "Unauthorized"),
    Body(
        "SGLang: bare",
        400,
        {"object": "error", "message": "Template rendering failed", "type": "BadRequest", "param": None, "code": 400},
        "bad_request",
        "Template rendering failed",
    ),
    Body(
        "llama.cpp: template",
        500,
        error("Conversation roles must alternate user/assistant", "server_error", 500),
        "server",
        "roles must alternate",
    ),
    Body(
        "Ollama: text",
        404,
        {"error": "model 'x' not found, try pulling it first"},
        "bad_request",
        "try pulling it first",
        "",
        "ollama",
    ),
    Body(
        "Ollama: page of a proxy",
        503,
        HTML_PAGE.format("503 Service Unavailable"),
        "server",
        "Error code: 503 - 503 Service Unavailable",
        "",
        "ollama",
        PAGE,
    ),
    Body(
        "Ollama: detail", 422, {"detail": "unsupported"}, "bad_request", "Error code: 422 - unsupported", "", "ollama"
    ),
    Body(
        "Ollama: OpenAI's object",
        400,
        error("no tools here", "api_error"),
        "bad_request",
        "Error code: 400 - no tools here",
        "",
        "ollama",
    ),
    Body("LM Studio: text", 400, {"error": "Model has unloaded or crashed."}, "bad_request", "unloaded or crashed"),
    Body(
        "LM Studio: unknown path",
        200,
        {"error": "Unexpected endpoint or method. (POST /chat/completions)"},
        "server",
        "Unexpected endpoint or method",
    ),
    Body(
        "TGI: validation",
        422,
        {"error": "Input validation error: `top_p` must be > 0.0 and < 1.0", "error_type": "validation"},
        "bad_request",
        "`top_p` must be",
        "validation",
    ),
    Body(
        "TGI: overloaded",
        429,
        {"error": "Model is overloaded", "error_type": "overloaded"},
        "rate_limit",
        "Model is overloaded",
        "overloaded",
    ),
    Body(
        "LiteLLM: proxy",
        400,
        error("litellm.BadRequestError: OpenAIException - bad tool", None, "400"),
        "bad_request",
        "bad tool",
    ),
    Body(
        "LiteLLM: detail object",
        401,
        {"detail": {"error": "Authentication Error, No api key passed in."}},
        "auth",
        "No api key passed in.",
    ),
    Body(
        "nginx", 502, HTML_PAGE.format("502 Bad Gateway"), "server", "Error code: 502 - 502 Bad Gateway", headers=PAGE
    ),
    Body(
        "nginx: too large",
        413,
        HTML_PAGE.format("413 Request Entity Too Large"),
        "context_length",
        "413 Request Entity Too Large",
        headers=PAGE,
    ),
    Body("Cloudflare", 502, CLOUDFLARE, "server", "api.example.com | 502: Bad gateway", headers=PAGE),
    Body(
        "Cloudflare: errors",
        403,
        {"success": False, "errors": [{"code": 10000, "message": "Authentication error"}], "result": None},
        "auth",
        "Authentication error",
    ),
    Body(
        "ELB",
        503,
        "<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n<body>\r\n<center>"
        "<h1>503 Service Temporarily Unavailable</h1></center>\r\n</body>\r\n</html>",
        "server",
        "503 Service Temporarily Unavailable",
        headers=PAGE,
    ),
    Body(
        "Envoy",
        503,
        "upstream connect error or disconnect/reset before headers",
        "server",
        "upstream connect error",
        headers={"content-type": "text/plain"},
    ),
    Body(
        "FastAPI",
        422,
        {
            "detail": [
                {"type": "missing", "loc": ["body", "messages"], "msg": "Field required"},
                {"type": "int_type", "loc": ["body", "n"], "msg": "Input should be an integer"},
            ]
        },
        "bad_request",
        "body.messages: Field required; body.n: Input should be an integer",
    ),
    Body(
        "Spring",
        500,
        {"timestamp": "2026-11-22T10:00:00Z", "status": 500, "error": "Internal Server Error", "path": "/v1"},
        "server",
        "Internal Server Error",
    ),
    Body(
        "a problem document",
        400,
        {"type": "about:blank", "title": "Bad Request", "detail": "The body is no JSON."},
        "bad_request",
        "The body is no JSON.",
        headers={"content-type": "application/problem+json"},
    ),
    Body(
        "errors in a list",
        400,
        {"errors": ["first fault", {"message": "second fault"}]},
        "bad_request",
        "first fault; second fault",
    ),
    Body("a list of texts", 400, ["one", "two"], "bad_request", "one; two"),
    Body("plain text", 500, "no healthy upstream", "server", "no healthy upstream"),
    Body("nothing", 400, "", "bad_request", "Error code: 400 - the response has no body that says why"),
    Body(
        "a shape of its own", 400, {"fault": {"faultstring": "Rejected by policy"}}, "bad_request", "Rejected by policy"
    ),
    Body("stream: text", 200, event('{"error": "CUDA out of memory"}'), "server", "CUDA out of memory", headers=SSE),
    Body("stream: detail", 200, event('{"detail": "The worker died"}'), "server", "The worker died", headers=SSE),
    Body(
        "stream: vLLM",
        200,
        event('{"object":"error","message":"Bad grammar","type":"BadRequestError","code":400}'),
        "bad_request",
        "Bad grammar",
        headers=SSE,
    ),
    Body(
        "stream: named event",
        200,
        event('{"message": "Model crashed"}', "error"),
        "server",
        "Model crashed",
        headers=SSE,
    ),
    Body("stream: a page", 200, HTML_PAGE.format("Sign in"), "server", "Sign in", headers=PAGE),
    Body(
        "stream: JSON instead",
        200,
        {"error": {"message": "Too many requests", "code": 429}},
        "rate_limit",
        "Too many requests",
    ),
]
