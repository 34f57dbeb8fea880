"""The software bill of materials: every package of requirements.lock, with its hashes, as CycloneDX 1.6 (JSON).

`make sbom` writes dist/encdl.cdx.json. Equal locks give equal files.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)(?: ; ([^\\]*?))? *\\?")


def components(lock: str) -> list[dict[str, Any]]:
    """The packages of a lock, each with the hashes of its files."""
    found: list[dict[str, Any]] = []
    for line in lock.splitlines():
        if pin := _PIN.fullmatch(line):
            name, version = re.sub("[-_.]+", "-", pin[1]).lower(), pin[2]
            found.append(
                {
                    "type": "library",
                    "bom-ref": f"pkg:pypi/{name}@{version}",
                    "name": name,
                    "version": version,
                    "purl": f"pkg:pypi/{name}@{version}",
                    **({"properties": [{"name": "encdl:marker", "value": pin[3]}]} if pin[3] else {}),
                    "externalReferences": [
                        {"type": "distribution", "url": f"https://pypi.org/project/{name}/{version}/", "hashes": []}
                    ],
                }
            )
        elif digest := re.fullmatch(r" +--hash=sha256:([0-9a-f]{64}) *\\?", line):
            found[-1]["externalReferences"][0]["hashes"].append({"alg": "SHA-256", "content": digest[1]})
        elif line and not line.startswith("#"):
            raise ValueError(f"requirements.lock: not a pinned package nor a hash: {line}")
    return found


def bill(lock: str, project: dict[str, Any]) -> dict[str, Any]:
    """The whole document."""
    version, licence = project["version"], project["license"]["text"]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=hashlib.sha256(lock.encode()).digest()[:16], version=4)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": f"pkg:pypi/encdl@{version}",
                "name": project["name"],
                "version": version,
                "licenses": [{"license": {"id": licence}}],
            }
        },
        "components": components(lock),
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    target.write_text(json.dumps(bill((ROOT / "requirements.lock").read_text(), project), indent=1) + "\n")
    print(target)
