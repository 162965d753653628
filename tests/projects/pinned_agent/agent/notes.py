"""A class that nobody but this project has."""

from dataclasses import dataclass


@dataclass
class Note:
    text: str
