"""The migrations on a real PostgreSQL, and the rights of the two roles."""

import json
import re
import threading
from collections.abc import Iterator

import psycopg
import pytest

from backend.db.address import plain_url
from backend.db.migrate import BOOKKEEPING_SCHEMA, CHECKPOINT_TABLES, migrate, migrations_directory
from backend.db.roles import RoleError, role_password
from backend.stack.postgres import Cluster
from tests.kit.servers.postgres import Postgres, running_cluster


@pytest.fixture
def airflow_table(pg: Postgres, postgres: Cluster) -> str:
    """A table like Airflow's: in `public`, owned by the role `airflow`."""
    with psycopg.connect(
        plain_url(postgres.url("airflow", user="airflow", password="owner")), autocommit=True
    ) as owner:
        owner.execute("CREATE TABLE IF NOT EXISTS public.connection (id int, password text)")
    return "public.connection"


@pytest.fixture(params=["backend_url", "worker_url"])
def role(request: pytest.FixtureRequest, pg: Postgres) -> Iterator[psycopg.Connection]:
    with psycopg.connect(plain_url(getattr(pg, request.param)), autocommit=True) as connection:
        yield connection


@pytest.fixture
def worker(pg: Postgres) -> Iterator[psycopg.Connection]:
    with psycopg.connect(plain_url(pg.worker_url), autocommit=True) as connection:
        yield connection


def refused(connection: psycopg.Connection, statement: str) -> bool:
    try:
        connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM {}",
        "INSERT INTO {} VALUES (1)",
        "UPDATE {} SET id = 2",
        "DELETE FROM {}",
        "TRUNCATE {}",
        "DROP TABLE {}",
    ],
)
def test_neither_role_can_access_airflows_tables(role: psycopg.Connection, airflow_table: str, statement: str) -> None:
    try:
        assert refused(role, statement.format(airflow_table))
    except psycopg.errors.UndefinedTable:
        pytest.fail("the table isn't there, so nothing was shown")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE public.mine (id int)",
        "CREATE TABLE visual_ai.mine (id int)",
        f"CREATE TABLE {BOOKKEEPING_SCHEMA}.mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "CREATE DATABASE mine",
        "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        f"SELECT * FROM {BOOKKEEPING_SCHEMA}._yoyo_migrations",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_read_file('postgresql.conf')",
    ],
)
def test_neither_role_can_create_anything_or_leave_its_schema(role: psycopg.Connection, statement: str) -> None:
    assert refused(role, statement)


def test_the_worker_can_delete_only_checkpoints_and_reservations(worker: psycopg.Connection) -> None:
    tables = worker.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'visual_ai'").fetchall()
    assert tables
    for (table,) in tables:
        if table not in (*CHECKPOINT_TABLES, "store_vectors", "workflow_threads", "limit_reservations"):
            assert refused(worker, f"DELETE FROM visual_ai.{table}"), table
        assert refused(worker, f"TRUNCATE visual_ai.{table}"), table


def test_the_backend_reads_checkpoints_and_changes_none(pg: Postgres) -> None:
    with psycopg.connect(plain_url(pg.backend_url), autocommit=True) as backend:
        for table in set(CHECKPOINT_TABLES) - {"store"}:
            assert not refused(backend, f"SELECT FROM visual_ai.{table}"), table
            assert refused(backend, f"INSERT INTO visual_ai.{table} DEFAULT VALUES"), table
            assert refused(backend, f"UPDATE visual_ai.{table} SET thread_id = 'x'"), table
            assert refused(backend, f"DELETE FROM visual_ai.{table}"), table
        for right in ("SELECT FROM visual_ai.store", "DELETE FROM visual_ai.store WHERE false"):
            assert not refused(backend, right)  # LangGraph's clients use it through the API


def test_rights_of_earlier_releases_are_revoked(pg: Postgres) -> None:
    migration = (migrations_directory() / "024_node_values.sql").read_text(encoding="utf-8")
    with psycopg.connect(plain_url(pg.admin_url)) as admin:
        for table in CHECKPOINT_TABLES:
            admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON visual_ai.{table} TO visual_ai_backend")
        admin.execute(migration[migration.index("DO $$") :])
        rights = admin.execute(
            "SELECT table_name::text, privilege_type::text FROM information_schema.role_table_grants"
            " WHERE grantee = 'visual_ai_backend' AND table_schema = 'visual_ai' AND table_name = ANY(%s) ORDER BY 1",
            [[*CHECKPOINT_TABLES]],
        ).fetchall()
        admin.rollback()
    assert rights == [(table, "SELECT") for table in sorted(CHECKPOINT_TABLES) if table != "store"]


def test_the_worker_can_add_records_and_change_no_events(worker: psycopg.Connection, database_url: str) -> None:
    row = worker.execute(
        "INSERT INTO visual_ai.workflow_executions (dag_id, dag_run_id) VALUES ('d', 'r') RETURNING id"
    ).fetchone()
    assert row is not None
    worker.execute("UPDATE visual_ai.workflow_executions SET state = 'running' WHERE id = %s", row)
    worker.execute(
        "INSERT INTO visual_ai.workflow_events (execution_id, seq, event_type, payload) VALUES (%s, 1, 'end', '{}')",
        row,
    )
    assert refused(worker, "UPDATE visual_ai.workflow_events SET payload = '{}'")


def test_a_password_is_required_and_never_sent_in_clear_text(pg: Postgres, postgres: Cluster) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(plain_url(postgres.url("airflow", user="visual_ai_worker", password="wrong")))
    rules = "SELECT DISTINCT auth_method FROM pg_hba_file_rules"
    with psycopg.connect(plain_url(pg.admin_url)) as admin:
        assert admin.execute(rules).fetchall() == [("scram-sha-256",)]
        stored = admin.execute("SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL").fetchall()
    assert stored
    assert all(str(verifier).startswith("SCRAM-SHA-256$") for (verifier,) in stored)


def test_migrating_again_changes_nothing(pg: Postgres) -> None:
    again = migrate(pg.admin_url)
    assert (again.applied, again.warnings) == ((), ())
    assert (again.backend_url, again.worker_url) == (pg.backend_url, pg.worker_url)


def test_two_simultaneous_migrations_both_succeed(postgres: Cluster) -> None:
    postgres.ensure_database("twice", owner="airflow", password="owner")
    applied, errors = [], []

    def run() -> None:
        try:
            applied.append(migrate(postgres.url("twice")).applied)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(map(len, applied))[:2] == [0, 0]
    assert max(map(len, applied)) >= 1


def test_a_killed_migration_does_not_block_the_next(pg: Postgres) -> None:
    with psycopg.connect(plain_url(pg.admin_url), autocommit=True) as admin:
        admin.execute(f"INSERT INTO {BOOKKEEPING_SCHEMA}.yoyo_lock (locked, ctime, pid) VALUES (1, now(), 1)")
    assert migrate(pg.admin_url).applied == ()


def test_databases_of_one_cluster_share_the_roles_passwords(pg: Postgres, postgres: Cluster) -> None:
    postgres.ensure_database("neighbour", owner="airflow", password="owner")
    migrate(postgres.url("neighbour"))
    psycopg.connect(plain_url(pg.worker_url)).close()
    assert role_password("a", "visual_ai_worker") != role_password("a", "visual_ai_backend")


def test_an_owner_who_may_not_create_roles_is_told_what_to_do() -> None:
    with running_cluster("secret") as cluster:
        cluster.ensure_database("airflow", owner="airflow", password="owner")
        owner = cluster.url("airflow", user="airflow", password="owner")
        with pytest.raises(RoleError, match=r"CREATE ROLE visual_ai_backend LOGIN PASSWORD"):
            migrate(owner)
        with psycopg.connect(plain_url(cluster.url()), autocommit=True) as admin:
            admin.execute("CREATE ROLE visual_ai_backend LOGIN PASSWORD 'b'")
            admin.execute("CREATE ROLE visual_ai_worker LOGIN PASSWORD 'w'")
        with pytest.raises(RoleError, match=r"ALTER ROLE visual_ai_backend LOGIN PASSWORD"):
            migrate(owner)
        migrated = migrate(owner, {"visual_ai_backend": "b", "visual_ai_worker": "w"})
        psycopg.connect(plain_url(migrated.worker_url)).close()
        assert not migrated.warnings


def test_large_values_of_earlier_releases_get_their_references(pg: Postgres) -> None:
    with psycopg.connect(plain_url(pg.admin_url), autocommit=True) as owner:
        table = "visual_ai.workflow_executions"
        owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        large = json.dumps({"text": "x" * 5_000_000})
        for run, result in (("large", large), ("small", '{"text": "x"}')):
            owner.execute(
                f"INSERT INTO {table} (dag_id, dag_run_id, state, output_data) VALUES ('of_old', %s, 'success', %s)",
                (run, result),
            )
        owner.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        migration = (migrations_directory() / "022_large_values.sql").read_text(encoding="utf-8")
        for statement in re.findall(r"^UPDATE .*?;$", migration, re.DOTALL | re.MULTILINE):
            owner.execute(statement)
        query = f"SELECT dag_run_id, output_reference ->> 'bytes' FROM {table} WHERE dag_id = 'of_old'"
        found: dict[str, str | None] = dict(owner.execute(query).fetchall())
    assert found == {"large": str(len(large)), "small": None}
