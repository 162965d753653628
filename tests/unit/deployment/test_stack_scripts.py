"""Scripts that run outside the package: the bootstrap, and the modules that Airflow loads from airflow/config."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
LOCAL = "LocalExecutor:visual_ai_executor.AdoptingLocalExecutor"


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem + "_under_test", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def local_settings() -> ModuleType:
    return load("airflow/config/airflow_local_settings.py")


@pytest.fixture
def bootstrap() -> ModuleType:
    return load("backend/stack/bootstrap.py")


def test_the_bootstrap_needs_only_the_standard_library() -> None:
    script = "import sys; sys.argv=['x']; import runpy; m=runpy.run_path(sys.stdin.read()); print(sorted(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], input=str(ROOT / "backend/stack/bootstrap.py"),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "backend" not in result.stdout


def test_an_unsupported_python_is_named_when_there_is_no_other(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(bootstrap.shutil, "which", lambda _: None)
    with pytest.raises(bootstrap.Stop, match=r"Python 3\.11, 3\.12 or 3\.13 is needed; .* is 3\.9"):
        bootstrap.find_python()


def test_another_python_on_the_path_is_used(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 14, 0))
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: f"/opt/{name}" if name == "python3.12" else None)
    assert bootstrap.find_python() == "/opt/python3.12"


def test_a_full_disk_stops_before_anything_is_touched(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap, "installed", lambda: False)
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1024**3})())
    monkeypatch.setattr(bootstrap, "run", lambda *_: pytest.fail("a step was run"))
    assert bootstrap.main() == 1
    assert "Not enough disk space" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("Error: ensurepip is not available", "python3-venv"),
    ],
)
def test_a_failed_step_explains_what_to_do(bootstrap: ModuleType, output: str, advice: str) -> None:
    with pytest.raises(bootstrap.Stop, match=advice):
        bootstrap.run("a step", [sys.executable, "-c", f"print({output!r}); raise SystemExit(1)"], {})


@pytest.mark.parametrize(
    ("arguments", "executor", "forks"),
    [
        (["/x/.venv/bin/airflow", "scheduler", "--skip-serve-logs"], LOCAL, True),
        (["airflow", "scheduler"], "LocalExecutor", True),
        (["airflow", "scheduler"], f"CeleryExecutor,{LOCAL}", True),
        (["airflow", "scheduler"], "CeleryExecutor", False),
        (["airflow", "scheduler"], "KubernetesExecutor", False),
        (["airflow", "celery", "worker"], "CeleryExecutor", True),
        (["airflow", "celery", "flower"], "CeleryExecutor", False),
        (["airflow", "api-server"], LOCAL, False),
        (["airflow", "dag-processor"], LOCAL, False),
        (["airflow", "triggerer"], LOCAL, False),
        (["pytest"], LOCAL, False),
        (["-c"], LOCAL, False),
    ],
)
def test_only_processes_that_fork_tasks_preload(
    local_settings: ModuleType, arguments: list[str], executor: str, forks: bool
) -> None:
    assert local_settings.forks_tasks(arguments, executor) is forks


def test_a_preload_that_fails_is_reported_and_not_fatal(
    local_settings: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken_preload.py").write_text("raise RuntimeError('not today')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert local_settings.preload(("json", "broken_preload", "absent_preload")) == ["broken_preload", "absent_preload"]
    assert "broken_preload" in caplog.text
    assert "absent_preload" not in caplog.text  # a missing optional package is not an error


def test_preloading_starts_no_thread() -> None:
    """Threads don't survive a fork, and their locks stay locked. Native threads are counted as well."""
    script = (
        "import sys, os; sys.path[:0] = ['airflow/config', 'airflow/plugins']; sys.argv = ['x'];"
        "import airflow_local_settings as s; before = len(os.listdir('/proc/self/task')); s.preload();"
        "print(before, len(os.listdir('/proc/self/task')))"
    )
    if not Path("/proc/self/task").exists():
        pytest.skip("needs /proc")
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split()[-2:] == ["1", "1"], result.stderr
