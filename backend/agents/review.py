"""The review agent judges a text, or other agents' results, by criteria. Nodes: prepare → judge.

Offline nothing is judged. The agent only checks that there is a text, that it is more than a fragment, and that it
contains the words of the criteria.
"""

import asyncio
from typing import Any, TypedDict

from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, StateGraph

from backend.agents.config import AgentConfig, AgentDeps, check_length, optional_text
from backend.agents.output_schema import load_output_schema
from backend.agents.structured import ask
from backend.agents.synthesis import finding, required_results
from backend.core.errors.input_error import InputError
from backend.models.offline.text_analysis import content_words, detect_language
from backend.models.prompts.document import fence, instructions
from backend.models.reply import Model

SYSTEM_PROMPT = (
    "You review what stands inside the <text> elements: a text, or what several agents found, each element named after "
    "its agent. Judge it by each criterion in turn, in the order given, and say in a sentence what the judgement rests "
    "on. Then give a score from 0 (useless) to 1 (nothing to improve) and the verdict: approve, revise or reject."
)
DEFAULT_CRITERIA = ("It answers what was asked.", "It is complete.", "It contradicts neither itself nor its sources.")
NOT_EMPTY = "It is not empty."
MAX_CRITERIA = 50
MIN_WORDS = 5
"""Offline, a text with fewer words than this counts as a fragment."""

NOTICE = (
    "Offline review: without a hosted model nothing is judged; it was only checked that there is a text, that it isn't "
    "a fragment, and that the words of the criteria are in it."
)
SCHEMA = {
    "title": "Review",
    "type": "object",
    "properties": {
        "findings": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "criterion": {"type": "string"},
                    "ok": {"type": "boolean"},
                    "comment": {"type": "string"},
                },
                "required": ["criterion", "ok", "comment"],
                "additionalProperties": False,
            },
        },
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "verdict": {"type": "string", "enum": ["approve", "revise", "reject"]},
    },
    "required": ["findings", "score", "verdict"],
    "additionalProperties": False,
}


class ReviewInput(TypedDict, total=False):
    """`subject` (or `text`) is what to review, and `results` what other agents returned; one of them is required.

    `criteria` are what to judge by. `query` is the original request, if there is one.
    """

    query: str | None
    subject: str | None
    text: str | None
    results: dict[str, Any] | None
    criteria: list[str] | None


class Finding(TypedDict):
    """The judgement on one criterion."""

    criterion: str
    ok: bool
    comment: str


class ReviewOutput(TypedDict, total=False):
    """`verdict` is "approve", "revise" or "reject"; `score` is from 0 to 1.

    `offline` says that no hosted model was involved; `notice` explains what that means.
    """

    verdict: str
    score: float
    findings: list[Finding]
    offline: bool
    notice: str | None


class ReviewState(ReviewInput, ReviewOutput, total=False):
    """The graph's state. `subjects` are the texts to review, by their agent's name or "text"."""

    subjects: dict[str, str]


def build(
    config: AgentConfig, model: Model, deps: AgentDeps
) -> StateGraph[ReviewState, None, ReviewInput, ReviewOutput]:
    """Build the agent's graph. The caller compiles it, with a checkpointer."""

    async def prepare(state: ReviewState) -> dict[str, Any]:
        optional_text(state, "query")
        criteria = _criteria(state.get("criteria"))
        subjects = {}
        text = optional_text(state, "subject") or optional_text(state, "text")
        if text is not None:
            check_length(text, deps, "subject" if optional_text(state, "subject") else "text")
            subjects["text"] = text
        if state.get("results"):
            subjects |= {name: finding(result) for name, result in required_results(state).items()}
        if all(state.get(name) is None for name in ("subject", "text", "results")):
            raise InputError("is missing; the agent needs it, or text, or results", field="subject")
        return {"subjects": subjects, "criteria": criteria}

    async def judge(state: ReviewState) -> dict[str, Any]:
        if not state["subjects"]:  # there is nothing for a model to judge
            empty = Finding(criterion=NOT_EMPTY, ok=False, comment="There is nothing to review.")
            notice = NOTICE if deps.offline else None
            return {"verdict": "reject", "score": 0.0, "findings": [empty], "offline": deps.offline, "notice": notice}
        return await (asyncio.to_thread(by_rules, state) if deps.offline else by_model(state))

    async def by_model(state: ReviewState) -> dict[str, Any]:
        criteria = state.get("criteria") or DEFAULT_CRITERIA
        asked = optional_text(state, "query")
        prompt = "\n".join(
            [
                *([f"What was asked for: {asked}"] if asked else []),
                "Criteria:",
                *(f"{number}. {criterion}" for number, criterion in enumerate(criteria, 1)),
                *(fence(text, name) for name, text in state["subjects"].items()),
            ]
        )
        system = instructions(config.system_prompt or SYSTEM_PROMPT)
        judged = await ask(model, [system, HumanMessage(prompt)], load_output_schema(SCHEMA))
        return {**judged, "offline": False, "notice": None}

    def by_rules(state: ReviewState) -> dict[str, Any]:
        text = "\n\n".join(state["subjects"].values())
        language = detect_language(text)
        words = content_words(text, language)
        count = len(text.split())
        findings = [
            Finding(criterion=NOT_EMPTY, ok=True, comment=f"{len(text)} characters."),
            Finding(criterion=f"It has at least {MIN_WORDS} words.", ok=count >= MIN_WORDS, comment=f"{count} words."),
        ]
        for criterion in state.get("criteria") or ():
            absent = [word for stem, word in content_words(criterion, language).items() if stem not in words]
            comment = f"Not in the text: {', '.join(absent)}." if absent else "Its words are in the text."
            findings.append(Finding(criterion=criterion, ok=not absent, comment=f"{comment} Only words were compared."))
        passed = sum(one["ok"] for one in findings)
        return {
            "verdict": "approve" if passed == len(findings) else "revise",
            "score": round(passed / len(findings), 3),
            "findings": findings,
            "offline": True,
            "notice": NOTICE,
        }

    graph = StateGraph(ReviewState, input_schema=ReviewInput, output_schema=ReviewOutput)
    graph.add_node("prepare", prepare)
    graph.add_node("judge", judge)
    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "judge")
    graph.add_edge("judge", END)
    return graph


def _criteria(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) and one.strip() for one in value):
        raise InputError("has to be a list of texts", field="criteria")
    if len(value) > MAX_CRITERIA:
        raise InputError(f"has {len(value)} entries, more than the limit of {MAX_CRITERIA}", field="criteria")
    return list(value)
