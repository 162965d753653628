"""Creates `.venv` from requirements.lock, so that everything else can rely on it.

Runs as a plain script under any `python3`, before anything is installed: standard library only, and no syntax newer
than Python 3.6, so that an old interpreter prints the message instead of a SyntaxError.

Exit codes: 0 ready, 1 a requirement is missing or a step failed (the reason is printed), 2 a system error.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

SUPPORTED = ((3, 11), (3, 12), (3, 13))
NEEDED_BYTES = 2 * 1024**3  # an installed environment takes 1.3 GiB
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
BUILD_LOCK = "requirements-build.lock"  # the installer, and what builds this project
MARKER = os.path.join(VENV, "installed.json")


class Stop(Exception):  # not a bug: a reason to stop
    """The installation can't continue. The message says why, and is meant for the user at the terminal."""


def find_python():
    # type: () -> str
    """The interpreter for the environment: this one, or a supported one on PATH."""
    if sys.version_info[:2] in SUPPORTED:
        return sys.executable
    for version in reversed(SUPPORTED):
        found = shutil.which("python{}.{}".format(*version))
        if found:
            return found
    raise Stop(
        "Python 3.11, 3.12 or 3.13 is needed; `{}` is {}.{}, and there is no other one on PATH.\n"
        "Install one, or specify it: make up PYTHON=/path/to/python3.12".format(sys.executable, *sys.version_info[:2])
    )


def fingerprint():
    # type: () -> str
    """Identifies what should be installed; changes whenever that does."""
    digest = hashlib.sha256()
    for name in ("requirements.lock", BUILD_LOCK, "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    digest.update(ROOT.encode())  # scripts of a moved checkout point to its old location
    return digest.hexdigest()


def installed():
    # type: () -> bool
    """Whether `.venv` already matches the lock."""
    try:
        with open(MARKER) as file:
            return bool(json.load(file)["fingerprint"] == fingerprint()) and os.path.exists(PYTHON)
    except (OSError, ValueError, KeyError):
        return False


def environment():
    # type: () -> dict[str, str]
    """The installer's environment: it compiles bytecode and trusts the system's certificates."""
    env = dict(os.environ)
    # Without compiled bytecode every start of Airflow takes 33 s instead of 14 s.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env["VIRTUAL_ENV"] = VENV
    env["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    # uv has its own certificates; a company's proxy is trusted only by the system's store.
    env.setdefault("UV_SYSTEM_CERTS", "1")
    env.setdefault("UV_NATIVE_TLS", "1")  # the same in older versions of uv
    return env


def adopt_pip_settings(env):
    # type: (dict[str, str]) -> None
    """Pass pip's package index and certificates on to uv, which doesn't read pip's configuration."""
    listing = subprocess.run(
        [PYTHON, "-m", "pip", "config", "list"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    settings = {}
    for line in listing.stdout.decode(errors="replace").splitlines():
        name, _, value = line.partition("=")
        settings[name.strip().rsplit(".", 1)[-1].replace("_", "-")] = value.strip().strip("'\"")
    index = settings.get("index-url")
    if index and not any(name in env for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL")):
        env["UV_DEFAULT_INDEX"] = index
    certificates = settings.get("cert")
    if certificates and os.path.exists(certificates):
        env.setdefault("SSL_CERT_FILE", certificates)


def run(what, command, env):
    # type: (str, list[str], dict[str, str]) -> None
    """Run one step of the installation and show its duration; raises `Stop` with its last lines of output."""
    sys.stdout.write("  {:<44}".format(what))
    sys.stdout.flush()
    started = time.monotonic()
    result = subprocess.run(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print("{:6.1f} s".format(time.monotonic() - started))
    if result.returncode == 0:
        return
    output = result.stdout.decode(errors="replace").strip()
    tail = "\n".join(output.splitlines()[-15:])
    if "No space left on device" in output or "ENOSPC" in output or "os error 28" in output:
        raise Stop("The disk is full. Free about 3 GiB and run the command again.\n" + tail)
    if "ensurepip" in output:
        raise Stop(
            "This Python has no working `venv` module. On Debian and Ubuntu: apt-get install python3-venv\n" + tail
        )
    raise Stop("`{}` failed:\n{}".format(" ".join(command), tail))


def install():
    # type: () -> None
    """Create or update `.venv`. An interrupted installation is continued: the marker is written last."""
    python = find_python()
    free = shutil.disk_usage(ROOT).free
    if free < NEEDED_BYTES:
        raise Stop(
            "Not enough disk space: {:.1f} GiB free in {}, at least {:.0f} GiB required.".format(
                free / 1024**3, ROOT, NEEDED_BYTES / 1024**3
            )
        )
    print("Installing (once; again only when requirements.lock changes)")
    if os.path.exists(MARKER):
        os.remove(MARKER)
    env = environment()
    usable = os.path.exists(PYTHON) and not subprocess.call(
        [PYTHON, "-c", "import sys, pip; sys.exit(sys.version_info[:2] not in %r)" % (SUPPORTED,)],
        stderr=subprocess.DEVNULL,
    )
    if not usable:
        shutil.rmtree(VENV, ignore_errors=True)
        run("Python environment (.venv)", [python, "-m", "venv", VENV], env)
    adopt_pip_settings(env)
    tools = ["--require-hashes", "-r", BUILD_LOCK]
    run("uv, the installer", [PYTHON, "-m", "pip", "install", "--quiet", *tools], env)
    uv = os.path.join(VENV, "bin", "uv")
    packages = ["--require-hashes", "--compile-bytecode", "requirements.lock"]
    run("packages of requirements.lock", [uv, "pip", "sync", *packages], env)
    project = ["--no-deps", "--build-constraint", BUILD_LOCK, "-e", "."]
    run("this project", [uv, "pip", "install", *project], env)
    with open(MARKER, "w") as file:
        json.dump({"fingerprint": fingerprint()}, file)


def main():
    # type: () -> int
    """Install unless that was already done."""
    try:
        if not installed():
            install()
    except Stop as reason:
        sys.stderr.write("\n{}\n".format(reason))
        return 1
    except OSError as error:
        sys.stderr.write("\nThe installation failed: {}\n".format(error))
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. Run the command again to continue.\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
