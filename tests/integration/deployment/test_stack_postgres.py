"""The embedded cluster: starting, stopping and recovering from a crash."""

import os
import pwd
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg
import pytest

from backend.db.address import plain_url
from backend.deployment.database import wait_until_reachable
from backend.deployment.layout import StackError
from backend.stack.postgres import SYSTEM_USER, Cluster
from tests.kit.processes.reaper import disposable_folder, marker
from tests.kit.processes.stack import free_port
from tests.kit.servers.postgres import running_cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster("secret") as cluster:
        yield cluster


def postmaster(cluster: Cluster) -> int:
    return int((cluster.data / "postmaster.pid").read_text().split("\n", 1)[0])


def kill(cluster: Cluster) -> None:
    process = psutil.Process(postmaster(cluster))
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    time.sleep(0.3)  # until its children have noticed and exited


def test_data_survives_a_stop(cluster: Cluster) -> None:
    cluster.ensure_database("kept", owner="someone", password="p")
    assert cluster.stop()
    assert not cluster.stop()
    cluster.start()
    psycopg.connect(plain_url(cluster.url("kept", user="someone", password="p"))).close()


def test_starting_twice_starts_one_server(cluster: Cluster) -> None:
    before = postmaster(cluster)
    cluster.start()
    assert postmaster(cluster) == before


def test_it_starts_after_a_power_failure(cluster: Cluster) -> None:
    kill(cluster)
    assert not cluster.running()
    cluster.start()
    wait_until_reachable(cluster.url(), timeout=5)


def test_a_pid_file_with_another_programs_pid_is_ignored(cluster: Cluster) -> None:
    kill(cluster)
    lines = (cluster.data / "postmaster.pid").read_text().split("\n")
    (cluster.data / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]))
    assert not cluster.running()
    cluster.start()
    assert cluster.running()


def test_it_can_move_to_another_port(cluster: Cluster) -> None:
    cluster.stop()
    moved = replace(cluster, port=free_port())
    moved.start()
    wait_until_reachable(moved.url(), timeout=5)


def test_it_listens_only_on_the_loopback_interface(cluster: Cluster) -> None:
    with psycopg.connect(plain_url(cluster.url())) as connection:
        shown = connection.execute(
            "SELECT name, setting FROM pg_settings WHERE name IN ('listen_addresses', 'unix_socket_directories')"
        ).fetchall()
    assert dict(shown) == {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
    assert stat.S_IMODE(cluster.data.stat().st_mode) == 0o700


def test_a_cluster_that_cannot_start_shows_its_log(cluster: Cluster) -> None:
    cluster.stop()
    with (cluster.data / "postgresql.conf").open("a") as file:
        file.write("\nshared_buffers = 'a lot'\n")
    with pytest.raises(StackError, match="shared_buffers"):
        cluster.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts the server as another user")
def test_a_private_directory_above_only_becomes_traversable() -> None:
    private = disposable_folder("private")
    reported: list[str] = []
    cluster = Cluster(
        private / "deeper" / "data", free_port(), "secret", marker(), durable=False, report=reported.append
    )
    try:
        cluster.start()
        assert stat.S_IMODE(private.stat().st_mode) == 0o701
        assert any(str(private) in line for line in reported)
    finally:
        cluster.stop()
        shutil.rmtree(private, ignore_errors=True)


@pytest.fixture
def no_system_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which root has not created the server's system user yet."""

    def unknown(name: str) -> pwd.struct_passwd:
        raise KeyError(name)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


def test_the_system_user_is_created_without_sbin_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_system_user: None
) -> None:
    sbin, called = tmp_path / "sbin", tmp_path / "called"
    sbin.mkdir()
    (sbin / "useradd").write_text(f'#!/bin/sh\necho "$@" > {called}\necho "stopped here" >&2\nexit 1\n')
    (sbin / "useradd").chmod(0o755)
    monkeypatch.setattr("backend.stack.postgres.SBIN", (str(sbin),))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="stopped here"):
        Cluster(tmp_path / "data", free_port(), "secret").start()
    assert called.read_text().split()[-1] == SYSTEM_USER


def test_a_machine_without_useradd_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_system_user: None
) -> None:
    monkeypatch.setattr("backend.stack.postgres.SBIN", (str(tmp_path),))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match=f"no `useradd`.*Create the system user `{SYSTEM_USER}`.*another user"):
        Cluster(tmp_path / "data", free_port(), "secret").start()


def test_an_unknown_host_or_password_is_reported_immediately(cluster: Cluster) -> None:
    started = time.monotonic()
    with pytest.raises(StackError, match="POSTGRES_PASSWORD"):
        wait_until_reachable(cluster.url(password="wrong"), timeout=30)
    with pytest.raises(StackError, match="POSTGRES_HOST"):
        wait_until_reachable("postgresql+psycopg://u:p@no-such-host.invalid/db", timeout=30)
    assert time.monotonic() - started < 20


def test_waiting_for_a_server_ends_with_its_error() -> None:
    with pytest.raises(StackError, match="refused"):
        wait_until_reachable(f"postgresql+psycopg://u:p@127.0.0.1:{free_port()}/db", timeout=1)
