"""Wrong settings are refused at once, by the name of the variable and without their value."""

import os
import resource
import subprocess
import sys

import pytest
from pydantic import ValidationError

from backend.core.settings import Settings


@pytest.mark.parametrize("url", ["redis://:pass@localhost:6379/0", "rediss://cache:6380", "unix:///run/redis.sock"])
def test_addresses_of_redis(url: str) -> None:
    assert Settings(_env_file=None, redis_url=url).redis_address == url


@pytest.mark.parametrize("url", ["localhost:6379", "http://secret-name:6379", "redis:/oops"])
def test_an_address_that_is_not_one_of_redis(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(ValidationError, match=r"REDIS_URL\n.* write redis://host:6379/0") as refused:
        Settings(_env_file=None)
    assert url not in str(refused.value)


def test_without_redis_postgres_wakes_the_feeds() -> None:
    assert Settings(_env_file=None).redis_address is None


LIMIT = """
import logging, resource, sys
from backend.api.server import raise_file_limit
logging.basicConfig()
soft, hard, streams = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
raise_file_limit(streams)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "streams", "expected", "warned"),
    [
        (300, 4000, 1000, 1500, False),
        (2000, 4000, 1000, 2000, False),
        (300, 1200, 1000, 1200, True),
    ],
)
def test_files_for_all_streams(soft: int, hard: int, streams: int, expected: int, warned: bool) -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= hard
    done = subprocess.run(
        [sys.executable, "-c", LIMIT, str(soft), str(hard), str(streams)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == str(expected), done.stderr
    assert ("VISUAL_AI_STREAMS_PER_PROCESS" in done.stderr) is warned
