"""Where the stack keeps its files, and who can read them."""

import os
import stat
from pathlib import Path

import pytest

from backend.deployment.credentials import load_credentials
from backend.deployment.layout import Layout

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(root=ROOT, state=tmp_path / "state")
    found.make_directories()
    return found


def test_secrets_are_readable_by_their_owner_only(layout: Layout) -> None:
    load_credentials(layout.secrets)
    assert stat.S_IMODE(layout.secrets.stat().st_mode) == 0o600


def test_a_secrets_file_that_was_opened_to_others_is_closed_again(layout: Layout) -> None:
    load_credentials(layout.secrets)
    layout.secrets.chmod(0o644)
    load_credentials(layout.secrets)
    assert stat.S_IMODE(layout.secrets.stat().st_mode) == 0o600


def test_secrets_are_made_once(layout: Layout) -> None:
    assert load_credentials(layout.secrets) == load_credentials(layout.secrets)


def test_a_secret_that_a_newer_version_needs_is_added_and_the_others_stay(layout: Layout) -> None:
    first = load_credentials(layout.secrets)
    lines = layout.secrets.read_text().splitlines(keepends=True)
    layout.secrets.write_text("".join(line for line in lines if not line.startswith("AIRFLOW_JWT_SECRET")))
    second = load_credentials(layout.secrets)
    assert second.pop("AIRFLOW_JWT_SECRET") != first.pop("AIRFLOW_JWT_SECRET")
    assert second == first


def test_every_secret_is_its_own_and_airflow_gets_the_length_it_asks_for(layout: Layout) -> None:
    credentials = load_credentials(layout.secrets)
    assert len(set(credentials.values())) == len(credentials)
    assert len(credentials["AIRFLOW_JWT_SECRET"].encode()) >= 64
    assert len(credentials["VISUAL_AI_JWT_SECRET"].encode()) >= 32


def test_nobody_else_lists_the_state_or_reads_logs(layout: Layout) -> None:
    assert not stat.S_IMODE(layout.state.stat().st_mode) & 0o066
    assert not stat.S_IMODE(layout.logs.stat().st_mode) & 0o077
    assert not stat.S_IMODE(layout.run.stat().st_mode) & 0o077


def test_the_supervisors_socket_fits_whatever_the_depth_of_the_checkout(tmp_path: Path) -> None:
    deep = Layout(root=ROOT, state=tmp_path / ("x" * 100) / ".stack")
    assert len(os.fsencode(deep.supervisor_socket)) <= 103
    assert deep.supervisor_socket != Layout(root=ROOT, state=tmp_path / ("y" * 100)).supervisor_socket


def test_a_moved_stack_has_an_airflow_home_and_a_marker_of_its_own(tmp_path: Path) -> None:
    usual, moved = Layout(root=ROOT, state=ROOT / ".stack"), Layout(root=ROOT, state=tmp_path)
    assert usual.airflow_home == ROOT / "airflow"
    assert moved.airflow_home == tmp_path / "airflow"
    assert (usual.identity, moved.identity) == (str(ROOT), str(tmp_path))
