"""How a person gets in: a token of the backend, and a first request to try it with."""

import json
import shlex
import sys
from pathlib import Path

import httpx

from backend.deployment.layout import Layout, StackError
from backend.deployment.options import StackOptions

SAMPLE_PICTURE = "sample://invoice"
_QUERY = "What is the total of this invoice?"


def fetch_token(options: StackOptions) -> str:
    """A token for the administrator of the settings. Raises `StackError` when the backend doesn't give one."""
    try:
        answer = httpx.post(
            f"{options.backend_url}/auth/token",
            json={"username": options.username, "password": options.password.get_secret_value()},
            timeout=30,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise StackError(
            f"The backend doesn't answer at {options.backend_url} ({error}); is it running? make up"
        ) from error
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise StackError(
            f"Airflow refused user `{options.username}`. If the password was changed, set it in .env: "
            "_AIRFLOW_WWW_USER_PASSWORD"
        )
    if answer.is_error:
        raise StackError(f"The backend gave no token: {answer.status_code} {answer.reason_phrase}")
    return str(answer.json()["access_token"])


def first_request(options: StackOptions, token: str) -> str:
    """One line for a shell that triggers the sample workflow."""
    body = json.dumps({"dag_id": "visual_ai_workflow", "input_data": {"query": _QUERY, "image_url": SAMPLE_PICTURE}})
    return (
        f"curl -sS {options.backend_url}/workflows/trigger -H 'Authorization: Bearer {token}' "
        f"-H 'Content-Type: application/json' -d '{body}'"
    )


def first_command(layout: Layout) -> str:
    """The same as a command that shows the run until it is over."""
    python = Path(sys.executable)
    shown = python.relative_to(layout.root) if python.is_relative_to(layout.root) else python
    order = f"--input query={shlex.quote(_QUERY)} --image {SAMPLE_PICTURE} --watch"
    return f"{shown} -m backend run visual_ai_workflow {order}"
