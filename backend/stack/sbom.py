"""`sbom`: the software bill of materials, in CycloneDX, of what the lock files pin."""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import backend

_PINNED = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)")


def bill_of_materials(root: Path) -> dict[str, Any]:
    """All Python packages of `requirements.lock` and all npm packages of the page, as a CycloneDX 1.6 document.

    The same lock files make the same document. Packages that only some platforms, extras or tests need are included;
    Debian's packages in images are not, which an image scanner lists.
    """
    components = [*_python(root), *_npm(root)]
    refs = [component["bom-ref"] for component in components]
    own = f"pkg:pypi/langgraph-flow@{backend.__version__}"
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([own, *refs]))}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "langgraph-flow",
                "version": backend.__version__,
                "purl": own,
            }
        },
        "components": components,
        "dependencies": [{"ref": own, "dependsOn": refs}],
    }


def _python(root: Path) -> Iterator[dict[str, Any]]:
    for line in (root / "requirements.lock").read_text().splitlines():
        if found := _PINNED.match(line):
            name, version = found.groups()
            yield _component(name, version, f"pkg:pypi/{name}@{quote(version, safe='.+-')}")


def _npm(root: Path) -> Iterator[dict[str, Any]]:
    packages = json.loads((root / "frontend" / "package-lock.json").read_text())["packages"]
    seen = set()
    # What is part of the page comes first: the same package may also be one that builds it.
    for path, package in sorted(packages.items(), key=lambda one: (bool(one[1].get("dev")), one[0])):
        name = package.get("name") or path.rpartition("node_modules/")[2]
        purl = f"pkg:npm/{quote(name, safe='/')}@{package.get('version')}"
        if not path or package.get("link") or purl in seen:
            continue
        seen.add(purl)
        component = _component(name, package["version"], purl)
        if package.get("dev"):
            component["scope"] = "excluded"  # builds the page and isn't part of it
        if isinstance(licence := package.get("license"), str):
            component["licenses"] = [{"expression": licence}]
        yield component


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
