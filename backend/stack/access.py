"""What a user needs to get started: a token, and a first request to try it with."""

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
    """Request a token for the administrator in the settings. Raises `StackError` when the backend doesn't issue one."""
    try:
        response = httpx.post(
            f"{options.backend_url}/auth/token",
            json={"username": options.username, "password": options.password.get_secret_value()},
            timeout=30,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise StackError(
            f"No response from the backend at {options.backend_url} ({error}). Is it running? make up"
        ) from error
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise StackError(
            f"Airflow rejected the user `{options.username}`. If the password was changed, set it in .env: "
            "_AIRFLOW_WWW_USER_PASSWORD"
        )
    if response.is_error:
        raise StackError(f"The backend issued no token: {response.status_code} {response.reason_phrase}")
    return str(response.json()["access_token"])


def first_request(options: StackOptions, token: str) -> str:
    """A shell command that triggers the sample workflow through the API."""
    body = json.dumps({"dag_id": "visual_ai_workflow", "input_data": {"query": _QUERY, "image_url": SAMPLE_PICTURE}})
    return (
        f"curl -sS {options.backend_url}/workflows/trigger -H 'Authorization: Bearer {token}' "
        f"-H 'Content-Type: application/json' -d '{body}'"
    )


def first_command(layout: Layout) -> str:
    """A command that does the same and watches the run until it finishes."""
    python = Path(sys.executable)
    shown = python.relative_to(layout.root) if python.is_relative_to(layout.root) else python
    arguments = f"--input query={shlex.quote(_QUERY)} --image {SAMPLE_PICTURE} --watch"
    return f"{shown} -m backend run visual_ai_workflow {arguments}"
