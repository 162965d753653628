"""docker/nginx.conf in a real nginx, filled in by the container's entry point."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.kit.processes.stack import ROOT, free_port, wait_until

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

SCRIPT = "console.log(1);" * 200


@contextmanager
def nginx_files() -> Iterator[Path]:
    """The entry point and its template as in the image, with nginx's files in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="nginx-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # started by root, nginx works as somebody else
        pages = folder / "pages"
        (pages / "assets").mkdir(parents=True)
        (pages / "index.html").write_text("<!doctype html><title>page</title>")
        (pages / "assets" / "index-0a1b2c3d.js").write_text(SCRIPT)
        (pages / "favicon.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
        for name in ("nginx.conf", "frontend-entry.sh"):
            text = (ROOT / "docker" / name).read_text().replace("/tmp/", f"{folder}/")
            (folder / name.replace("nginx.conf", "nginx.conf.in")).write_text(text)
        entry = folder / "frontend-entry.sh"
        entry.write_text(entry.read_text().replace('/nginx.conf" >', '/nginx.conf.in" >'))
        entry.chmod(0o755)
        yield folder


@contextmanager
def nginx(folder: Path, backend_url: str) -> Iterator[str]:
    """The address of an nginx in front of a backend, with the files of `nginx_files`."""
    port = free_port()
    environment = {
        "PATH": f"{os.environ['PATH']}:/usr/sbin",
        "BACKEND_URL": backend_url,
        "FRONTEND_PORT": str(port),
        "FRONTEND_ROOT": str(folder / "pages"),
        "VISUAL_AI_MAX_IMAGE_BYTES": "2000000",
        "VISUAL_AI_MAX_BODY_BYTES": "1000000",
    }
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([str(folder / "frontend-entry.sh")], env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(url) or process.poll(), timeout=10, what="nginx")
        assert process.poll() is None, (folder / "log").read_text()
        yield url
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/favicon.svg", timeout=10, trust_env=False).is_success
    except httpx.TransportError:
        return False
