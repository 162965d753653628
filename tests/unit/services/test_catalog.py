"""What a workflow says about input that doesn't fit its parameters."""

from jsonschema import Draft202012Validator

from backend.services.triggering.catalog import Workflow, input_schema

EXPECTED = "An https:// address, or the image_url of an upload"


def workflow() -> Workflow:
    image_url = {"schema": {"type": "string", "pattern": "^(https|upload)://"}, "description": EXPECTED}
    schema = input_schema(
        {"image_url": image_url, "code": {"schema": {"type": ["string", "null"], "pattern": "^[a-z]$"}}}
    )
    return Workflow("dag", "dag", None, [], False, schema, _validator=Draft202012Validator(schema))


def test_input_in_the_wrong_form_is_told_what_is_expected() -> None:
    [fault] = workflow().faults({"image_url": "file:///etc/passwd"})
    assert fault.pointer == "/input_data/image_url"
    assert fault.detail == f"'file:///etc/passwd' has the wrong form; expected: {EXPECTED}"


def test_without_a_description_the_expression_is_named() -> None:
    [fault] = workflow().faults({"image_url": "https://host/picture", "code": "AB"})
    assert fault.detail == "'AB' does not match '^[a-z]$'"
