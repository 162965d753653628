"""A migrated PostgreSQL for benchmarks that need no Airflow. It is as durable as one in production."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.kit.servers.postgres import Postgres, migrated_database, running_cluster


@contextmanager
def bench_database() -> Iterator[Postgres]:
    """A database that exists for the length of a `with` block."""
    with running_cluster("bench", durable=True) as cluster:
        yield migrated_database(cluster)
