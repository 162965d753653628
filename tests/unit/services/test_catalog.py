"""What a workflow says about input that doesn't fit its parameters."""

import pytest

from backend.core.json_schema import JsonSchema
from backend.services.triggering.catalog import Workflow, input_schema

EXPECTED = "An https:// address, or the image_url of an upload"


def workflow() -> Workflow:
    image_url = {"schema": {"type": "string", "pattern": "^(https|upload)://"}, "description": EXPECTED}
    schema = input_schema(
        {"image_url": image_url, "code": {"schema": {"type": ["string", "null"], "pattern": "^[a-z]$"}}}
    )
    return Workflow("dag", "dag", None, [], False, schema, _checks=JsonSchema(schema))


def test_input_in_the_wrong_form_is_told_what_is_expected() -> None:
    [fault] = workflow().faults({"image_url": "file:///etc/passwd"})
    assert fault.pointer == "/input_data/image_url"
    assert fault.detail == f"'file:///etc/passwd' has the wrong form; expected: {EXPECTED}"


def test_without_a_description_the_expression_is_named() -> None:
    [fault] = workflow().faults({"image_url": "https://host/picture", "code": "AB"})
    assert fault.detail == '"AB" does not match "^[a-z]$"'


@pytest.mark.parametrize("pattern", ["^(a+)+$", r"^(?=a)(a+)+\1$"])
def test_an_expression_of_the_schema_cant_hang(pattern: str) -> None:
    schema = input_schema({"code": {"schema": {"type": "string", "pattern": pattern}}})
    [fault] = Workflow("dag", "dag", None, [], False, schema, _checks=JsonSchema(schema)).faults(
        {"code": "a" * 60 + "!"}
    )
    assert fault.pointer == "/input_data/code"


def test_the_first_fault_of_a_long_list_is_named() -> None:
    schema = input_schema({"sizes": {"schema": {"type": "array", "items": {"type": "integer"}}}})
    sizes: list[object] = [1] * 900_000
    sizes[800_000] = sizes[800_001] = "x"
    [fault] = Workflow("dag", "dag", None, [], False, schema, _checks=JsonSchema(schema)).faults({"sizes": sizes})
    assert (fault.pointer, fault.detail) == ("/input_data/sizes/800000", '"x" is not of type "integer"')


def test_what_nothing_can_store_is_a_fault() -> None:
    schema = input_schema({"code": {"schema": {"type": "integer"}}})
    one = Workflow("dag", "dag", None, [], False, schema, _checks=JsonSchema(schema))
    [fault] = one.faults({"code": "\ud800"})
    assert fault.pointer == "/input_data/code"
    assert "surrogate" in fault.detail


def test_the_alternative_that_was_meant_says_what_is_wrong() -> None:
    schema = input_schema({"name": {"schema": {"anyOf": [{"type": "string", "minLength": 3}, {"type": "null"}]}}})
    one = Workflow("dag", "dag", None, [], False, schema, _checks=JsonSchema(schema))
    assert [fault.detail for fault in one.faults({"name": "x"})] == ['"x" is shorter than 3 characters']
    assert "not valid under any" in one.faults({"name": 1})[0].detail
