"""`local:text`: says what can be determined about a text without a language model, and no more."""

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage

from backend.models.offline.chat import LocalChatModel
from backend.models.offline.text_analysis import (
    MAX_PHRASE_CHARS,
    detect_language,
    key_phrases,
    matching_sentences,
    split_sentences,
    statistics,
    summarise,
)
from backend.models.prompts.document import unfence

NAME = "local:text"

NOTICE = (
    f"Offline analysis by {NAME}: without a language model sentences are picked from the text, not written, "
    "and nothing is concluded from them."
)
SUMMARY_SENTENCES = 5
KEY_PHRASES = 10


class LocalText(LocalChatModel):
    """Summarises the text in the last human message by extraction. Offline and deterministic.

    The text is the content of `<text>` elements (`backend.models.prompts.document`), and what surrounds them is the
    question. A message without such an element is all text. Each of several elements gets its own part of the summary.
    `additional_kwargs["analysis"]` has `offline, notice, summary, key_phrases, language, statistics, matches,
    coverage`; `coverage` says how many sentences were compared if the text is too long for all. A text of 1,000,000
    characters takes a few seconds.
    """

    model: str = NAME

    def _analyse(self, messages: Sequence[BaseMessage]) -> tuple[str, dict[str, Any]]:
        prompt = next((message.text for message in reversed(messages) if isinstance(message, HumanMessage)), "")
        query, documents = unfence(prompt)
        text = "\n\n".join(body for _, body in documents)
        language = detect_language(text)
        split = [(name, split_sentences(body)) for name, body in documents]
        sentences = [sentence for _, body in split for sentence in body]
        if not sentences:
            empty = f"{NOTICE}\nThere is no text to summarise."
            return empty, {"offline": True, "notice": NOTICE, "statistics": statistics(text, sentences)}

        count = max(2, SUMMARY_SENTENCES // len(split)) if len(split) > 1 else SUMMARY_SENTENCES
        parts = [(name, summarise(body, language, count)) for name, body in split if body]
        summary = "\n".join((f"{name}: " if name else "") + " ".join(part.sentences) for name, part in parts)
        coverage = {
            "sentences": len(sentences),
            "sentences_ranked": sum(part.ranked for _, part in parts),
            "key_phrase_characters": min(len(text), MAX_PHRASE_CHARS),
        }
        analysis: dict[str, Any] = {
            "offline": True,
            "notice": NOTICE,
            "summary": summary,
            "key_phrases": key_phrases(text, sentences, language, KEY_PHRASES),
            "language": language,
            "statistics": statistics(text, sentences),
            "matches": matching_sentences(query, sentences, language) if query else [],
            "coverage": coverage,
        }
        return "\n".join(_report_lines(query, analysis)), analysis


def _report_lines(query: str, analysis: dict[str, Any]) -> list[str]:
    counts, coverage = analysis["statistics"], analysis["coverage"]
    lines = [analysis["notice"], "Summary:", analysis["summary"]]
    if coverage["sentences_ranked"] < coverage["sentences"]:
        lines.append(
            f"(Too long to compare all: {coverage['sentences_ranked']} of {coverage['sentences']} "
            "sentences were ranked, the most typical one of each equal stretch of the text.)"
        )
    if analysis["matches"]:
        lines += ["Sentences that share words with the question:", *analysis["matches"]]
    elif query:
        lines.append("No sentence shares words with the question.")
    if analysis["key_phrases"]:
        lines.append(f"Key phrases: {', '.join(analysis['key_phrases'])}.")
    lines.append(f"Language: {analysis['language'] or 'too little text to tell'}.")
    lines.append(
        f"Size: {counts['characters']} characters, {counts['words']} words, {counts['sentences']} sentences, "
        f"about {counts['reading_minutes']} min to read."
    )
    return lines
