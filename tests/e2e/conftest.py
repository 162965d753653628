"""The whole stack, started once for all end-to-end tests, with an OpenAI-compatible server beside it.

Agents use that server unless a run asks for an offline model (`model="local:vision"`): one stack serves both.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.kit.openai_server import OpenAIServer
from tests.kit.stack import RunningStack, running_stack

OPENAI_KEY = "sk-proj-e2eSecretThatMayStandNowhere0123456789"


@pytest.fixture(scope="session")
def stack(running_openai_server: OpenAIServer) -> Iterator[RunningStack]:
    """The running stack. Fails with its output when it doesn't come up; stopped and removed after the tests."""
    environment = {"OPENAI_BASE_URL": running_openai_server.base_url, "OPENAI_API_KEY": OPENAI_KEY}
    with running_stack(environment) as running:
        shutil.copytree(Path(__file__).with_name("dags"), running.dags, dirs_exist_ok=True)
        yield running


@pytest.fixture(scope="session")
def backend(stack: RunningStack) -> Iterator[httpx.Client]:
    """The backend, as the administrator."""
    client = stack.backend()
    yield client
    client.close()


@pytest.fixture(scope="session")
def airflow(stack: RunningStack) -> Iterator[httpx.Client]:
    """Airflow's REST API, as the administrator."""
    client = stack.airflow()
    yield client
    client.close()
