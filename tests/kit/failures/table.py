"""Failures as model providers really answer: status, headers and bodies, recorded from their documentation, their
servers' sources and what their users report, and the ways in which connections break.

Names, keys and addresses in the bodies are made up.
"""

from tests.kit.failures.case import Case
from tests.kit.failures.compatible import COMPATIBLE, OTHERS
from tests.kit.failures.openai import BROKEN, OPENAI

CASES: list[Case] = [*OPENAI, *BROKEN, *COMPATIBLE, *OTHERS]
