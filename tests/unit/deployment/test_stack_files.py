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


def test_secrets_are_readable_only_by_their_owner(layout: Layout) -> None:
    load_credentials(layout.secrets)
    assert stat.S_IMODE(layout.secrets.stat().st_mode) == 0o600


def test_a_readable_secrets_file_is_made_private_again(layout: Layout) -> None:
    load_credentials(layout.secrets)
    layout.secrets.chmod(0o644)
    load_credentials(layout.secrets)
    assert stat.S_IMODE(layout.secrets.stat().st_mode) == 0o600


def test_secrets_are_generated_once(layout: Layout) -> None:
    assert load_credentials(layout.secrets) == load_credentials(layout.secrets)


def test_a_missing_secret_is_added_and_the_others_are_kept(layout: Layout) -> None:
    first = load_credentials(layout.secrets)
    lines = layout.secrets.read_text().splitlines(keepends=True)
    layout.secrets.write_text("".join(line for line in lines if not line.startswith("AIRFLOW_JWT_SECRET")))
    second = load_credentials(layout.secrets)
    assert second.pop("AIRFLOW_JWT_SECRET") != first.pop("AIRFLOW_JWT_SECRET")
    assert second == first


def test_secrets_are_unique_and_long_enough_for_airflow(layout: Layout) -> None:
    credentials = load_credentials(layout.secrets)
    assert len(set(credentials.values())) == len(credentials)
    assert len(credentials["AIRFLOW_JWT_SECRET"].encode()) >= 64
    assert len(credentials["VISUAL_AI_JWT_SECRET"].encode()) >= 32


def test_nobody_else_can_list_the_state_or_read_logs(layout: Layout) -> None:
    assert not stat.S_IMODE(layout.state.stat().st_mode) & 0o066
    assert not stat.S_IMODE(layout.logs.stat().st_mode) & 0o077
    assert not stat.S_IMODE(layout.run.stat().st_mode) & 0o077


def test_the_supervisors_socket_path_is_short_enough_in_a_deep_checkout(tmp_path: Path) -> None:
    deep = Layout(root=ROOT, state=tmp_path / ("x" * 100) / ".stack")
    assert len(os.fsencode(deep.supervisor_socket)) <= 103
    assert deep.supervisor_socket != Layout(root=ROOT, state=tmp_path / ("y" * 100)).supervisor_socket


def test_a_moved_stack_has_its_own_airflow_home_and_marker(tmp_path: Path) -> None:
    usual, moved = Layout(root=ROOT, state=ROOT / ".stack"), Layout(root=ROOT, state=tmp_path)
    assert usual.airflow_home == ROOT / "airflow"
    assert moved.airflow_home == tmp_path / "airflow"
    assert (usual.identity, moved.identity) == (str(ROOT), str(tmp_path))
