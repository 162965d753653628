"""Analyses a text without a language model: its language, its key phrases and its central sentences.

All functions are blocking and deterministic, work offline, and take time in proportion to the text's length.
"""

import re
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

MAX_RANKED = 200
"""LexRank compares all pairs of sentences: 200 sentences take about 0.25 s, 1,000 would take 6 s."""

MAX_PHRASE_CHARS = 200_000
"""YAKE takes about 4 µs per character; more text than this takes longer without better phrases."""

MAX_SENTENCE_CHARS = 500
"""Longer "sentences" are tables, logs or code, and are split at a space."""

LANGUAGE_SAMPLE_CHARS = 20_000
MIN_LANGUAGE_LETTERS = 20
"""With fewer letters than this a language would be a guess, so none is reported."""

WORDS_PER_MINUTE = 238
"""Silent reading of English non-fiction: Brysbaert, "How many words do we read per minute?", 2019."""

# Scripts without spaces: each character counts as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+(?:['’][^\W_]+)*")
_WIDE_STOP = re.compile(r"(?<=[。！？])")
_ITEM_START = re.compile(r"\n(?=[ \t]{0,8}(?:[-*•#>|]|\d{1,3}[.)][ \t]))")

_load_lock = threading.Lock()


def prepare() -> None:
    """Load the libraries' data now, so that the processes that are forked later share it. Starts no thread."""
    sentence = "The harbour was quiet, and three boats lay at the pier."
    detect_language(sentence)
    key_phrases(sentence, [sentence], "en")
    _language_tools("en")


@dataclass(frozen=True, slots=True)
class Summary:
    """The central sentences in the order of the text; `ranked` of `total` sentences were compared."""

    sentences: tuple[str, ...]
    ranked: int
    total: int


def split_words(text: str) -> list[str]:
    """The words of a text: runs of letters and digits; in scripts without spaces, single characters."""
    return _WORD.findall(text)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, none longer than `MAX_SENTENCE_CHARS`.

    A blank line also ends a sentence, and so does the start of a list item, a heading or a table row. Any other line
    break counts as a space, as in prose wrapped at a fixed width.
    """
    from segtok.segmenter import split_multi

    unix = text.replace("\r\n", "\n").replace("\r", "\n")
    marked = _ITEM_START.sub("\n\n", _WIDE_STOP.sub("\n\n", unix))
    pieces = (" ".join(piece.split()) for piece in split_multi(marked))
    sentences: list[str] = []
    for piece in pieces:
        if len(piece) <= MAX_SENTENCE_CHARS:
            sentences.append(piece)
        else:
            sentences += textwrap.wrap(piece, MAX_SENTENCE_CHARS, break_on_hyphens=False)
    return [sentence for sentence in sentences if _WORD.search(sentence)]


def statistics(text: str, sentences: Sequence[str]) -> dict[str, Any]:
    """Counts, and the reading time in minutes at `WORDS_PER_MINUTE`."""
    words = len(split_words(text))
    return {
        "characters": len(text),
        "words": words,
        "sentences": len(sentences),
        "reading_minutes": round(words / WORDS_PER_MINUTE, 1),
    }


def detect_language(text: str) -> str | None:
    """The ISO 639-1 code of the text's language, judged by its beginning; None if the text is too short to tell."""
    sample = text[:LANGUAGE_SAMPLE_CHARS]
    if sum(map(str.isalpha, sample)) < MIN_LANGUAGE_LETTERS:
        return None
    import py3langid

    with _load_lock:  # the first call loads the model
        return str(py3langid.classify(sample)[0])


def key_phrases(text: str, sentences: Sequence[str], language: str | None, count: int = 10) -> list[str]:
    """The key phrases of a text (YAKE), of up to two words each, the best first.

    A text of more than `MAX_PHRASE_CHARS` is represented by evenly spaced sentences of that total length.
    """
    import yake

    sample = text
    if len(text) > MAX_PHRASE_CHARS:
        step = -(-len(text) // MAX_PHRASE_CHARS)
        sample = "\n".join(sentences[::step])[:MAX_PHRASE_CHARS]
    extractor = yake.KeywordExtractor(lan=language or "en", n=2, top=count)
    return [str(phrase) for phrase, _ in extractor.extract_keywords(sample)]


def summarise(sentences: Sequence[str], language: str | None, count: int = 5) -> Summary:
    """The `count` most central sentences: LexRank (Erkan and Radev, 2004), as sumy implements it.

    A text of more than `MAX_RANKED` sentences is divided into that many equal parts. Each is represented by its best
    sentence, by the mean frequency of its words (SumBasic's measure), so that the whole text is covered.
    """
    unique = list(dict.fromkeys(sentences))
    candidates = unique if len(unique) <= MAX_RANKED else _stretch_winners(unique, language)
    if len(candidates) <= count:
        return Summary(tuple(candidates), len(candidates), len(sentences))
    import numpy as np
    from sumy.models.dom import ObjectDocumentModel, Paragraph, Sentence
    from sumy.summarizers.lex_rank import LexRankSummarizer

    tokenizer = _Tokenizer()
    document = ObjectDocumentModel([Paragraph([Sentence(text, tokenizer) for text in candidates])])
    stem, stop_words = _language_tools(language)
    summarizer = LexRankSummarizer(stem)
    summarizer.stop_words = stop_words
    # Sentences that share no word with any other have no rank (0/0) and come last.
    with np.errstate(divide="ignore", invalid="ignore"):
        best = summarizer(document, count)
    return Summary(tuple(str(sentence) for sentence in best), len(candidates), len(sentences))


def content_words(text: str, language: str | None) -> dict[str, str]:
    """The stems of a text's content words, in lower case, without single letters."""
    stem, stop_words = _language_tools(language)
    folded = dict.fromkeys(word.casefold() for word in split_words(text))
    return {stem(word): word for word in folded if word not in stop_words and len(word) > 1}


def matching_sentences(query: str, sentences: Iterable[str], language: str | None, count: int = 5) -> list[str]:
    """The sentences that share most of the question's content words, in the order of the text."""
    stems = sorted(content_words(query, language))
    if not stems:
        return []
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, stems))})", re.IGNORECASE)
    unique = enumerate(dict.fromkeys(sentences))
    scored = [
        (len({found.casefold() for found in pattern.findall(sentence)}), position, sentence)
        for position, sentence in unique
    ]
    best = sorted((entry for entry in scored if entry[0]), key=lambda entry: (-entry[0], entry[1]))[:count]
    return [sentence for _, _, sentence in sorted(best, key=lambda entry: entry[1])]


def _stretch_winners(sentences: Sequence[str], language: str | None) -> list[str]:
    _, stop_words = _language_tools(language)
    words = [
        [word for word in map(str.casefold, split_words(sentence)) if word not in stop_words] for sentence in sentences
    ]
    frequency = Counter(word for sentence in words for word in sentence)
    bounds = [len(sentences) * part // MAX_RANKED for part in range(MAX_RANKED + 1)]

    def weight(index: int) -> float:
        # A sentence that repeats one word is a heading, not a statement.
        return sum(frequency[word] for word in words[index]) / max(len(words[index]), 5)

    return [sentences[max(range(start, end), key=weight)] for start, end in pairwise(bounds)]


@lru_cache(maxsize=32)
def _language_tools(language: str | None) -> tuple[Callable[[str], str], frozenset[str]]:
    """The stemmer and the stop words of a language; without either for a language that sumy does not know."""
    from sumy.nlp.stemmers import Stemmer, null_stemmer
    from sumy.utils import get_stop_words

    stem, stop_words = null_stemmer, frozenset[str]()
    try:
        stop_words = frozenset(get_stop_words(language or "en"))
        stem = Stemmer(language or "en")
    except LookupError:
        pass
    return stem, stop_words


class _Tokenizer:
    """The tokenizer interface that sumy expects; its own tokenizer would download data."""

    def to_words(self, sentence: str) -> tuple[str, ...]:
        return tuple(split_words(sentence))

    def to_sentences(self, paragraph: str) -> tuple[str, ...]:
        return (paragraph,)
