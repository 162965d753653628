"""Pydantic models, and what is none, for tests that name them by their path."""

from datetime import date

from pydantic import BaseModel, RootModel

TOTAL = 79.5


class Invoice(BaseModel):
    """What is taken from an invoice."""

    total: float
    date: date
    customer: str | None = None


class Tree(BaseModel):
    """A model that holds itself."""

    name: str
    children: list["Tree"] = []


class Numbers(RootModel[list[int]]):
    """A list, not an object."""
