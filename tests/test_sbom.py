from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.sbom import components

ROOT = Path(__file__).parents[1]


def test_every_package_of_the_lock_is_in_the_bill_with_its_hashes(tmp_path: Path) -> None:
    target = tmp_path / "dist" / "encdl.cdx.json"
    for _ in range(2):
        subprocess.run([sys.executable, ROOT / "experiments" / "sbom.py", target], check=True, capture_output=True)
        made = json.loads(target.read_text())
    lock = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^([^\s#=\[]+)(?:\[.*\])?==(\S+)", lock, flags=re.MULTILINE)
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    assert [(one["name"], one["version"]) for one in made["components"]] == [
        (re.sub("[-_.]+", "-", name).lower(), version) for name, version in pins
    ]
    hashes = [one["content"] for part in made["components"] for one in part["externalReferences"][0]["hashes"]]
    assert hashes == re.findall(r"sha256:([0-9a-f]{64})", lock)
    assert all(part["externalReferences"][0]["hashes"] for part in made["components"])


def test_a_lock_with_anything_else_is_refused() -> None:
    with pytest.raises(ValueError, match="not a pinned package nor a hash: torch>=2"):
        components("torch>=2\n")
