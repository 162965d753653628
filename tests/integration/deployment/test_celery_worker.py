"""A Celery worker as the compose file starts it, with a broker but without Airflow's database."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from backend.deployment.credentials import load_credentials
from backend.deployment.entrypoint import WORKER, Container
from tests.kit.processes.reaper import marker
from tests.kit.processes.stack import ROOT, wait_until
from tests.kit.servers.redis import RedisServer

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def environment(tmp_path: Path, redis_server: RedisServer) -> dict[str, str]:
    """A worker's environment, with the checkout's folders instead of the image's."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("config", "plugins", "dags"):
        (home / name).symlink_to(ROOT / "airflow" / name)
    secrets = tmp_path / "run" / WORKER / "secrets.env"
    secrets.parent.mkdir(parents=True)
    load_credentials(secrets, ["VISUAL_AI_WORKER_DB_PASSWORD"])
    person = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "AIRFLOW_HOME": str(home),
        "COMPOSE_PROFILES": "celery",
        "POSTGRES_HOST": "127.0.0.1",
        "AIRFLOW__CELERY__BROKER_URL": f"{redis_server.url}",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"{redis_server.url}",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
    }
    given = Container(person, tmp_path / "run").airflow_environment()
    return given | marker() | {"PYTHONPATH": f"{given['PYTHONPATH']}:{ROOT}"}  # in the image the package is installed


@pytest.fixture
def worker(environment: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = ["airflow", "celery", "worker", "--skip-serve-logs"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:  # it is still starting
            process.kill()
            process.wait()


def test_a_worker_needs_no_database_passes_its_health_check_and_preloads(
    worker: subprocess.Popen[bytes], environment: dict[str, str], tmp_path: Path
) -> None:
    def healthy() -> bool:
        assert worker.poll() is None, (tmp_path / "log").read_text()
        command = [sys.executable, str(ROOT / "docker" / "bin" / "celery-healthy")]
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0

    wait_until(healthy, timeout=180, poll=1, what="the worker")
    pool = psutil.Process(worker.pid).children()
    assert len(pool) >= 2
    for process in pool:
        assert any("/cv2/" in mapped.path for mapped in process.memory_maps()), "a task would have to load it"
