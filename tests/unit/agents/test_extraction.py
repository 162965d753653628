"""The extraction agent without a hosted model: what its rules find, and what they leave alone."""

import base64
from typing import Any

import pytest

from backend.agents.config import AgentDeps
from backend.agents.extraction import NOTICE
from backend.agents.output_schema import DataError, load_output_schema
from backend.agents.registry import get_agent
from backend.core.errors.input_error import InputError
from backend.core.settings import Settings
from backend.models.offline.field_extraction import find_fields
from backend.models.offline.vision import LocalVision
from backend.pictures.cache import ImageCache
from tests.kit.pictures import encode, invoice

DEPS = AgentDeps(Settings(_env_file=None), images=ImageCache(), offline=True)

NUMBER = {"type": "number"}
TEXT = {"type": "string"}
DATE = {"type": "string", "format": "date"}

LETTER = """
Invoice No: 2026-1147
Invoice date: 14 November 2026
Due date   28.11.2026
Customer name = Anna Lindqvist
| Net amount | EUR 1,250.00 |
Total EUR 1.487,50
VAT (19 %): 237,50
Paid: no
Currency: eur
Questions? Write to billing@example.com or see https://example.com/help.
"""


def found(text: str, **properties: Any) -> dict[str, Any]:
    hits = find_fields(text, {"type": "object", "properties": properties})
    return {name: None if hit is None else hit.value for name, hit in hits.items()}


def test_labels_and_types() -> None:
    assert found(
        LETTER,
        invoice_number=TEXT,
        invoiceDate=DATE,
        due_date={"anyOf": [DATE, {"type": "null"}], "default": None},
        customer={**TEXT, "title": "Customer name"},
        net_amount=NUMBER,
        total=NUMBER,
        vat={"type": ["number", "null"]},
        paid={"type": "boolean"},
        currency={"enum": ["USD", "EUR"]},
        email=TEXT,
        help={"type": "string", "format": "uri"},
        dates={"type": "array", "items": DATE},
        delivery_date=DATE,
        lines={"type": "array", "items": {"type": "object"}},
        address={"type": "object", "properties": {"city": TEXT}},
    ) == {
        "invoice_number": "2026-1147",
        "invoiceDate": "2026-11-14",
        "due_date": "2026-11-28",
        "customer": "Anna Lindqvist",
        "net_amount": 1250.0,
        "total": 1487.5,
        "vat": 237.5,
        "paid": False,
        "currency": "EUR",
        "email": "billing@example.com",
        "help": "https://example.com/help",
        "dates": ["2026-11-14", "2026-11-28"],
        "delivery_date": None,
        "lines": None,
        "address": None,
    }


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("Total: 12 of 30", NUMBER),  # which of the two?
        ("Total: 12\nTotal: 13", NUMBER),
        ("Total: 12.5", {"type": "integer"}),
        ("Total: 12", {"type": "number", "minimum": 100}),
        ("Total silence fell over the 7 hills of the town.", NUMBER),
        ("Total: 03/04/2026", DATE),  # March or April?
        ("Total: 31.02.2026", DATE),
        ("Total: maybe", {"type": "boolean"}),
        ("Write to a@example.com or b@example.com", {"type": "string", "format": "email"}),
        ("Subtotal: 12", NUMBER),
        ("", NUMBER),
    ],
)
def test_ambiguous_values_are_not_found(text: str, part: dict[str, Any]) -> None:
    assert found(text, total=part) == {"total": None}


def test_another_fields_label_is_not_taken() -> None:
    assert found("Due date: 2026-11-28", date=DATE, due_date=DATE) == {"date": None, "due_date": "2026-11-28"}
    assert found("Due date: 2026-11-28", date=DATE) == {"date": "2026-11-28"}


def test_definitions_are_followed() -> None:
    schema = {
        "type": "object",
        "properties": {"total": {"$ref": "#/$defs/money"}},
        "$defs": {"money": {"type": "number", "minimum": 0}},
    }
    hit = find_fields("Total: 12", schema)["total"]
    assert hit is not None
    assert (hit.value, hit.line) == (12.0, "Total: 12")


async def test_the_agent_offline_with_a_text() -> None:
    schema = {"type": "object", "properties": {"total": NUMBER, "iban": TEXT}, "required": ["total", "iban"]}
    graph = get_agent("extraction").build({"output_schema": schema}, LocalVision(), DEPS).compile()
    assert await graph.ainvoke({"text": LETTER}) == {
        "data": {"total": 1487.5, "iban": None},
        "missing": ["iban"],
        "evidence": {"total": "Total EUR 1.487,50"},
        "image": None,
        "offline": True,
        "notice": NOTICE,
    }


async def test_the_agent_offline_with_a_picture() -> None:
    url = f"data:image/png;base64,{base64.b64encode(encode(invoice())).decode()}"
    config = {"output_schema": "tests.kit.schema_models:Invoice"}
    graph = get_agent("extraction").build(config, LocalVision(), DEPS).compile()
    output = await graph.ainvoke({"image_url": url})
    assert output["data"] == {"total": 79.5, "date": "2026-11-14", "customer": None}
    assert output["missing"] == ["customer"]
    assert output["image"]["width"] == 1000


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "text: is missing; the agent needs it, or image_url"),
        ({"text": " "}, "text: is missing; the agent needs it, or image_url"),
        ({"text": 5}, "text: has to be text, not int"),
        ({"text": "x", "image_url": 5}, "image_url: has to be text, not int"),
    ],
)
async def test_bad_input_names_the_field(given: dict[str, Any], message: str) -> None:
    config = {"output_schema": {"type": "object"}}
    graph = get_agent("extraction").build(config, LocalVision(), DEPS).compile()
    with pytest.raises(InputError) as caught:
        await graph.ainvoke(given)
    assert str(caught.value) == message


def test_without_a_schema_there_is_nothing_to_extract() -> None:
    with pytest.raises(InputError, match=r"^output_schema: is missing; the extraction agent needs it"):
        get_agent("extraction").build({}, LocalVision(), DEPS)


@pytest.mark.parametrize("kind", ["vision", "text", "synthesis"])
def test_other_agents_fill_no_schema_offline(kind: str) -> None:
    with pytest.raises(InputError, match=r"^output_schema: needs a hosted model"):
        get_agent(kind).build({"output_schema": {"type": "object"}}, LocalVision(), DEPS)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_package.models:Invoice", "can't be imported: ModuleNotFoundError"),
        ("tests.kit.schema_models:Nothing", "can't be imported: AttributeError"),
        ("tests.kit.schema_models:TOTAL", "is no Pydantic model"),
        ("tests.kit.schema_models:Numbers", "has to describe an object"),
        ("tests.kit.broken_module:Model", "can't be imported: RuntimeError: broken on purpose"),
    ],
)
def test_a_class_that_cannot_be_used(path: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_output_schema(path)
    assert str(caught.value).startswith(f"output_schema: {path} {message}")


def test_fitting_data() -> None:
    by_class = load_output_schema("tests.kit.schema_models:Invoice")
    assert by_class.fit({"total": "79.50", "date": "2026-11-14"}) == {
        "total": 79.5,
        "date": "2026-11-14",
        "customer": None,
    }
    with pytest.raises(DataError, match="total: Input should be a valid number"):
        by_class.fit({"total": "much", "date": "2026-11-14"})
    by_schema = load_output_schema({"type": "object", "properties": {"on": DATE}, "required": ["on"]})
    assert by_schema.fit({"on": "2026-11-14"}) == {"on": "2026-11-14"}
    for wrong, message in (({}, r'\$: "on" is a required'), ({"on": "soon"}, r'\$\.on: "soon" is not a "date"')):
        with pytest.raises(DataError, match=message):
            by_schema.fit(wrong)


def test_a_recursive_model() -> None:
    tree = load_output_schema("tests.kit.schema_models:Tree")
    assert tree.json_schema["type"] == "object"
    assert tree.fit({"name": "a", "children": [{"name": "b"}]})["children"] == [{"name": "b", "children": []}]
