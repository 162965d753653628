"""How many tokens a request had, by the words in which it was refused as too long."""

import re

_SUM = re.compile(r"(\d[\d,]*) \+ (\d[\d,]*) > ")  # Anthropic: the prompt and its max_tokens
_NUMBER = re.compile(r"(?<![\w.-])\d[\d,]{3,}(?![\w.-]*[A-Za-z-])")


def tokens_refused(message: str) -> int | None:
    """The tokens that a refused request had: the largest number of the message, which names limits, too.

    None when it names none. Providers that count prompt and answer together do so here.
    """
    if found := _SUM.search(message):
        return sum(int(part.replace(",", "")) for part in found.groups())
    numbers = [int(number.replace(",", "")) for number in _NUMBER.findall(message)]
    return max(numbers, default=None)
