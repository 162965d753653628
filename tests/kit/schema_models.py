"""Pydantic models, and objects that are none, for tests that refer to them by their import path."""

from datetime import date

from pydantic import BaseModel, RootModel

TOTAL = 79.5


class Invoice(BaseModel):
    """The data that is extracted from an invoice."""

    total: float
    date: date
    customer: str | None = None


class Tree(BaseModel):
    """A recursive model."""

    name: str
    children: list["Tree"] = []


class Numbers(RootModel[list[int]]):
    """A list instead of an object."""
