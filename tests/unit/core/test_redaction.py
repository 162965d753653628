"""Secrets and picture bytes go, everything else stays."""

import base64
import json
from decimal import Decimal
from typing import Any

import pytest

from backend.core.redaction import REDACTED, redact, redact_text

PICTURE = base64.b64encode(bytes(range(256)) * 4).decode()
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZG1pbiJ9.abcdefghijklmnop"


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefgh12345678",
        "sk_live_abcdefgh12345678",
        "pk-lf-12345678-abcd",
        "sk-ant-api03-abcdefgh",
        "xoxb-1234567890-abcdef",
        "ghp_abcdefghijklmnop1234",
        "glpat-abcdefgh1234",
        "Bearer abcdefghijkl",
        "bearer  abcdefghijkl==",
        JWT,
    ],
)
@pytest.mark.parametrize("around", ["{}", "key={}, and more", '{{"authorization": "{}"}}', "({})", "told\n{}\nagain"])
def test_secrets_in_text_are_taken_out(secret: str, around: str) -> None:
    redacted = redact_text(around.format(secret))
    assert secret.split()[-1] not in redacted
    assert REDACTED in redacted


def test_credentials_in_an_address_are_taken_out_and_the_address_stays() -> None:
    redacted = redact_text("could not reach postgresql://airflow:p%40ss@db.internal:5432/airflow")
    assert redacted == f"could not reach postgresql://{REDACTED}@db.internal:5432/airflow"


@pytest.mark.parametrize(
    "text",
    [
        "a risk-based approach to tasks",
        "task_id=analyse_image",
        "https://example.com/a:b/c?time=12:30@noon",
        "the bearer of news",
        "Rate limit reached on tokens per min (TPM): Limit 30000",
        "disk-encryption-is-good",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redact_text(text) == text


def test_embedded_pictures_are_described() -> None:
    redacted = redact_text(f'{{"url": "data:image/png;base64,{PICTURE}"}}')
    assert PICTURE[:64] not in redacted
    assert redacted.startswith('{"url": "data:image/png;base64,[1026 bytes, ')
    assert redact_text(f"data:image/png;base64,{PICTURE}") == redact_text(f"data:image/png;base64,{PICTURE}")


def test_long_text_is_cut_and_says_so() -> None:
    assert redact_text("x" * 11, limit=10) == "x" * 10 + "… (11 characters)"
    assert redact_text("x" * 10, limit=10) == "x" * 10


@pytest.mark.parametrize(
    ("key", "hidden"),
    [
        ("api_key", True), ("OPENAI_API_KEY", True), ("apiKey", True), ("password", True), ("client_secret", True),
        ("Authorization", True), ("access_token", True), ("token", True), ("credentials", True),
        ("input_tokens", False), ("total_tokens", False), ("max_tokens", False), ("prompt_tokens", False),
        ("query", False), ("token_type", False), ("secretary", False),
    ],
)  # fmt: skip
def test_values_under_telling_names_are_taken_out(key: str, hidden: bool) -> None:
    assert redact({key: "plain"}) == {key: REDACTED if hidden else "plain"}
    assert redact({"inner": [{key: 7}]}) == {"inner": [{key: REDACTED if hidden else 7}]}


def test_what_is_left_is_json() -> None:
    value: dict[Any, Any] = {
        "none": None, "password": None, "yes": True, "count": 3, "part": 0.5, "nan": float("nan"),
        "infinite": float("-inf"), "bytes": b"12345", "set": {1}, "tuple": (1, "two"), 7: Decimal("1.5"),
    }  # fmt: skip
    redacted = redact(value)
    assert redacted == {
        "none": None, "password": None, "yes": True, "count": 3, "part": 0.5, "nan": None,
        "infinite": None, "bytes": "[5 bytes]", "set": [1], "tuple": [1, "two"], "7": "1.5",
    }  # fmt: skip
    json.dumps(redacted, allow_nan=False)


@pytest.mark.parametrize("around", ["{}", '{{"base64": "{}", "mime_type": "image/png"}}', "See {} above"])
def test_bare_base64_is_a_picture_or_a_file(around: str) -> None:
    encoded = base64.b64encode(bytes(range(256)) * 3).decode()
    redacted = redact_text(around.format(encoded))
    assert encoded[50:90] not in redacted
    assert "[768 bytes, " in redacted
    lines = "\n".join(encoded[start : start + 76] for start in range(0, len(encoded), 76))
    assert encoded[80:120] not in redact_text(around.format(lines))


@pytest.mark.parametrize(
    "text", ["x" * 1000, "word " * 400, "0123456789abcdef" * 40, "a-dag_id/" * 60, "Ümläute" * 100, "A1b2" * 99]
)
def test_other_long_words_stay(text: str) -> None:
    assert redact_text(text) == text
