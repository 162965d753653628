"""Examines a model with a few small requests: whether it answers, and which ways of asking its server supports.

Each check asks for one thing without any of the adaptation that agents get (`backend/models/adaptation.py`), so that
what is refused shows. Only the first check takes the agents' way, because it decides whether the model can be used.
"""

import base64
import io
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage

from backend.agents.answer_data import candidates
from backend.agents.output_schema import DataError, load_output_schema
from backend.core.errors.classify import classify
from backend.core.models.modes import OUTPUT_METHODS, ModelModes, OutputMethod
from backend.core.settings import Settings
from backend.core.workflow_error_handler import parse_error_policy
from backend.doctor.report import Finding, Report, Result
from backend.models.adaptation import StructuredAnswer, UnknownMethodError
from backend.models.call import make_model_call
from backend.models.prices import context_window, cost_usd
from backend.models.refusals import Feature, refused_feature
from backend.models.resolve import ModelChoice, build_model
from backend.models.usage import CallUsage, Usage

MAX_DETAIL = 200
MAX_OVERFLOW_COST = 0.10
"""The most, in US dollars, that a prompt which is too long may cost if the server takes it after all."""
UNKNOWN_WINDOW = 300_000
"""The tokens of such a prompt for a model whose context window isn't known."""
TOO_LONG = 1.1

_ONCE = {name: {"retries": 0, "fallback": False} for name in ("rate_limit", "timeout", "server")} | {
    "context_length": {"fallback": False}
}
_SUM: dict[str, Any] = {
    "title": "Sum",
    "type": "object",
    "properties": {"sum": {"type": "integer"}},
    "required": ["sum"],
    "additionalProperties": False,
}
_QUESTION = "What is 2 + 3?"
_HELLO = "Answer with the word OK."
_COLOUR = "What colour is this picture? Answer with one word."
_FEATURES: Mapping[OutputMethod, Feature] = {
    "json_schema": "json_schema",
    "function_calling": "function_calling",
    "json_mode": "json_mode",
}


class Examination:
    """The examination of one model."""

    def __init__(self, choice: ModelChoice, settings: Settings, address: str | None, *, timeout: float) -> None:
        """`address` is shown to the user. `timeout` is that of each request, in seconds."""
        self._choice = choice
        self._settings = settings
        self._timeout = timeout
        self._used = Usage()
        self._whole_answers = 0
        self._modes: dict[str, Any] = {}
        self.report = Report(choice.name, choice.local, address)

    async def run(self, *, overflow: bool) -> Report:
        """Try everything. With `overflow`, a prompt that is too long is sent whatever it may cost."""
        report = self.report
        report.usable = await self._reachable()
        if report.usable and not self._choice.local:
            await self._streaming()
            await self._structured()
            await self._pictures()
            await self._overflow(anyway=overflow)
            if self._modes:
                report.settings["VISUAL_AI_MODEL_MODES"] = json.dumps({self._choice.name: self._modes})
        report.input_tokens, report.output_tokens = self._used.input_tokens, self._used.output_tokens
        report.cost_usd = self._used.cost_usd
        return report

    async def _reachable(self) -> bool:
        call = make_model_call(
            self._choice,
            self._settings,
            replace(parse_error_policy(_ONCE), fallbacks={}),
            purpose="vision" if self._choice.name == "local:vision" else "text",
            params={"timeout": self._timeout},
            modes=ModelModes(streaming=False),
        )
        prompt: Any = [HumanMessage(_picture(_HELLO) if self._choice.name == "local:vision" else _HELLO)]
        began = time.monotonic()
        try:
            self._count(await call.ainvoke(prompt))
        except Exception as error:
            self._add("answers", "failed", f"{classify(error).category}: {_said(error)}", began)
            self.report.notes.append(_advice(classify(error).category))
            return False
        self._add("answers", "yes", "", began)
        if self._choice.local:
            self._describe_local()
        return True

    def _describe_local(self) -> None:
        pictures = self._choice.name == "local:vision"
        what = "measures pictures and reads their text (OCR)" if pictures else "selects sentences and counts words"
        self.report.notes.append(
            f"{self._choice.name} is no language model: it {what} on this machine, without a key, a network or costs. "
            "It is used when no provider's key is set."
        )
        self._add("streaming", "yes", "line by line")
        self._add("usage in streams", "yes", "words are counted; nothing is charged")
        for method in ("json_schema", "function_calling", "json_mode"):
            self._add(method, "no", "only the agent extraction fills a schema, by labels and patterns")
        self._add("pictures", "yes" if pictures else "no", "" if pictures else "local:vision reads them")
        self._add("context overflow", "not tried", "texts are limited by VISUAL_AI_MAX_TEXT_CHARS alone")

    async def _streaming(self) -> None:
        began, self._whole_answers = time.monotonic(), 0
        usage_refused, asked_for_usage = "", True
        while True:
            try:
                answer = await self._stream(usage=asked_for_usage)
                break
            except Exception as error:
                used: set[Feature] = {"streaming", "stream_usage"} if asked_for_usage else {"streaming"}
                feature = refused_feature(error, used)
                if feature == "stream_usage":
                    usage_refused, asked_for_usage = _said(error), False
                    self.report.settings["VISUAL_AI_STREAM_USAGE"] = "false"
                    continue
                if feature == "streaming":
                    self._modes["streaming"] = False
                self._add("streaming", "refused" if feature else "failed", _said(error), began)
                self._add("usage in streams", "not tried")
                return
        if self._whole_answers:
            self._modes["streaming"] = False
            self._add("streaming", "ignored", "the answer comes as a whole", began)
            self._add("usage in streams", "not tried")
            return
        self._add("streaming", "yes", "", began)
        if answer is not None and answer.usage_metadata is not None:
            self._add("usage in streams", "yes")
            return
        self._add("usage in streams", "refused" if usage_refused else "ignored", usage_refused)
        self.report.notes.append(
            "Streamed answers don't say what they used, so their tokens and costs are unknown. Whole answers may: "
            'VISUAL_AI_STREAMING=false, or "streaming": false in VISUAL_AI_MODEL_MODES.'
        )

    async def _stream(self, *, usage: bool) -> AIMessageChunk | None:
        model = self._model()
        if not usage and "stream_usage" in type(model).model_fields:
            model = model.model_copy(update={"stream_usage": False})
        self.report.requests += 1
        whole: AIMessageChunk | None = None
        async for chunk in model.astream(_HELLO):
            whole = chunk if whole is None else whole + chunk
        if whole is not None:
            self._used_by(whole)
        return whole

    async def _structured(self) -> None:
        results: dict[OutputMethod, Result] = {}
        for method in OUTPUT_METHODS:
            if method == "prompt" and "yes" in results.values():
                break
            results[method] = await self._structured_by(method)
        best = next((method for method, result in results.items() if result == "yes"), None)
        if best is None:
            self.report.notes.append(
                "No structured answer came. An output_schema and the agents extraction, review and supervisor need a "
                "model that can give one."
            )
        elif best != OUTPUT_METHODS[0]:
            self._modes["output_method"] = best

    async def _structured_by(self, method: OutputMethod) -> Result:
        began = time.monotonic()
        try:
            shaped = StructuredAnswer(_SUM).shape(self._model(streaming=False), method)
            answer = await self._ask(shaped, [HumanMessage(_QUESTION)])
        except UnknownMethodError as error:
            return self._add(method, "no", _short(str(error)), began)
        except Exception as error:
            feature = _FEATURES.get(method)
            refused = feature is not None and refused_feature(error, {feature}) is not None
            return self._add(method, "refused" if refused else "failed", _said(error), began)
        if method == "function_calling" and not answer.tool_calls:
            return self._add(method, "ignored", f"the answer calls no tool: {_short(answer.text)}", began)
        fit = load_output_schema(_SUM).fit
        try:
            for data in candidates(answer):
                fit(data)
                return self._add(method, "yes", "", began)
        except DataError as error:
            return self._add(method, "ignored", f"the answer doesn't fit the schema: {error}", began)
        return self._add(method, "ignored", "the answer holds no data", began)

    async def _pictures(self) -> None:
        began = time.monotonic()
        try:
            answer = await self._ask(self._model(streaming=False), [HumanMessage(_picture(_COLOUR))])
        except Exception as error:
            category = classify(error).category
            result: Result = "refused" if category in ("bad_request", "server", "internal") else "failed"
            self._add("pictures", result, _said(error), began)
        else:
            if "red" in answer.text.lower():
                self._add("pictures", "yes", "", began)
                return
            self._add("pictures", "ignored", f"a red picture was called {_short(answer.text)!r}", began)
        self.report.notes.append("Name another model for the agents vision and extraction where they get pictures.")

    async def _overflow(self, *, anyway: bool) -> None:
        name = self._choice.name
        window = context_window(name)
        tokens = round(window * TOO_LONG) if window else UNKNOWN_WINDOW
        cost = cost_usd(name, tokens, 0)
        if not anyway and (cost > MAX_OVERFLOW_COST if cost is not None else not _is_near(self.report.address)):
            price = "is paid for" if cost is None else f"costs {cost:.2f} US dollars"
            self._add("context overflow", "not tried", f"--overflow sends a prompt that {price} if it isn't refused")
            return
        began = time.monotonic()
        try:
            answer = await self._ask(self._model(streaming=False), [HumanMessage("ship " * tokens + _HELLO)])
        except Exception as error:
            category = classify(error).category
            if category == "context_length":
                self._add("context overflow", "yes", _said(error), began)
                return
            timed_out = category in ("timeout", "rate_limit", "quota")
            self._add("context overflow", "failed" if timed_out else "no", f"{category}: {_said(error)}", began)
        else:
            counted = answer.usage_metadata["input_tokens"] if answer.usage_metadata else None
            if counted is not None and counted < tokens / 2:
                detail = f"the server cuts long prompts: it counted {counted:,} of about {tokens:,} tokens"
                self._add("context overflow", "ignored", detail, began)
            else:
                self._add("context overflow", "no", f"the server took about {tokens:,} tokens", began)
        self.report.notes.append(
            "A prompt that is too long isn't recognised as such, so no fallback model with a larger context takes "
            "over. Keep VISUAL_AI_MAX_TEXT_CHARS below what the model can hold."
        )

    def _model(self, *, streaming: bool = True) -> BaseChatModel:
        """The model as agents build it, without the adaptation to its server."""
        model = build_model(self._choice, self._settings, on_whole_answer=self._count_whole, timeout=self._timeout)
        return model if streaming else model.model_copy(update={"disable_streaming": True})

    def _count_whole(self) -> None:
        self._whole_answers += 1

    async def _ask(self, model: Any, prompt: LanguageModelInput) -> AIMessage:
        self.report.requests += 1
        answer: AIMessage = await model.ainvoke(prompt)
        self._used_by(answer)
        return answer

    def _count(self, answer: AIMessage) -> None:
        self.report.requests += not self._choice.local
        self._used_by(answer)

    def _used_by(self, answer: AIMessage) -> None:
        used = CallUsage.of(answer, self._choice.name)
        self._used.add(used.input_tokens, used.output_tokens, used.cost)

    def _add(self, check: str, result: Result, detail: str = "", began: float | None = None) -> Result:
        seconds = None if began is None else round(time.monotonic() - began, 2)
        self.report.findings.append(Finding(check, result, detail, seconds))
        return result


def _picture(question: str) -> list[str | dict[Any, Any]]:
    """A question about a small red picture."""
    from PIL import Image

    drawn = io.BytesIO()
    Image.new("RGB", (64, 64), (220, 20, 20)).save(drawn, "PNG")
    data = base64.b64encode(drawn.getvalue()).decode("ascii")
    return [{"type": "text", "text": question}, {"type": "image", "base64": data, "mime_type": "image/png"}]


def _is_near(address: str | None) -> bool:
    """Whether an address is in a private network, where a prompt that is taken after all costs nothing but time."""
    host = (urlsplit(address).hostname or "") if address else ""
    try:
        return ip_address(host).is_private
    except ValueError:
        return bool(host) and ("." not in host or host.endswith((".local", ".internal")))


def _said(error: BaseException) -> str:
    return _short(classify(error).message)


def _short(text: str) -> str:
    line = "".join(filter(str.isprintable, " ".join(text.split())))  # and no control characters for the terminal
    return line if len(line) <= MAX_DETAIL else f"{line[:MAX_DETAIL]}…"


def _advice(category: str) -> str:
    """What to do about a model that doesn't answer."""
    return {
        "auth": "The server refuses the key: check it, and that it belongs to this address.",
        "quota": "The account has no credit or quota left.",
        "rate_limit": "The server is limiting requests: try again later.",
        "timeout": "The server did not answer in time: try --timeout with more seconds.",
        "server": "The server can't be reached or is failing: check the address and whether it is running.",
        "bad_request": "The server refuses the request: check the model's name and the address, often ending in /v1.",
    }.get(category, "Fix this first; nothing else was tried.")
