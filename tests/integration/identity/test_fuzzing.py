"""Some hundred requests by Schemathesis; `make bench ARGS=fuzz` sends 20,000."""

import subprocess
from pathlib import Path

import pytest

from tests.kit.fuzzing import fuzz, fuzzed_backend, schemathesis


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    try:
        schemathesis()
    except (subprocess.CalledProcessError, OSError):
        pytest.skip("Schemathesis can't be installed")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("caller", "phases"), [("anna", "fuzzing,stateful"), ("nobody", "fuzzing")])
async def test_no_request_is_answered_with_what_the_document_does_not_name(
    database_url: str, tmp_path: Path, caller: str, phases: str
) -> None:
    async with fuzzed_backend(database_url) as url:
        found = await fuzz(url, caller, tmp_path, examples=2, phases=phases)
    assert found.failures == []
    assert found.cases > 50
