"""A migrated PostgreSQL for benchmarks that need no Airflow. It is as durable as one in production."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.db.migrate import migrate
from backend.stack.postgres import Cluster
from tests.kit.processes.stack import free_port


@dataclass(frozen=True)
class BenchDatabase:
    """The administrator's and the worker's URL (psycopg 3)."""

    admin_url: str
    worker_url: str


@contextmanager
def bench_database() -> Iterator[BenchDatabase]:
    """Started, and gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="visual-ai-bench-"))
    cluster = Cluster(directory / "data", free_port(), "bench", durable=True, report=lambda _: None)
    try:
        cluster.start()
        cluster.ensure_database("airflow", owner="airflow", password="owner")
        yield BenchDatabase(cluster.url("airflow"), migrate(cluster.url("airflow")).worker_url)
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)
