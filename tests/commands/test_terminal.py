"""Names of files that would steer a terminal, and memory that would land in a core dump."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from encdl.cli import main
from encdl.utils.messages import plain
from tests.commands.conftest import KEYED

EVIL = "a\x1b]0;title\x07\x1b[2J\x9b31m\u202egnp"
ONE, MANY = EVIL + ".png", [EVIL + ".png", "b" + EVIL + ".png"]

VERBS = {
    "one": ["encrypt", ONE, *KEYED],
    "one that is there": ["encrypt", ONE, *KEYED, "-o", "there" + EVIL],
    "many": ["encrypt", *MANY, *KEYED, "--output", "out" + EVIL],
    "no image": ["encrypt", *MANY, "bad" + EVIL, *KEYED, "--output", "out" + EVIL],
    "inspect": ["inspect", "bad" + EVIL],
    "missing": ["decrypt", "none" + EVIL, *KEYED],
    "unknown option": ["decrypt", ONE, "--" + EVIL, *KEYED],
    "new key": ["keygen", EVIL],
}


@pytest.mark.parametrize("what", VERBS)
def test_no_file_name_steers_the_terminal(folder: Path, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    for name in MANY:
        Path(name).write_bytes(Path("scan.png").read_bytes())
    for name in ("bad", "there"):
        Path(name + EVIL).write_bytes(b"no image")
    capfd.readouterr()
    with contextlib.suppress(SystemExit):  # as argparse ends
        main(VERBS[what])
    told = "".join(capfd.readouterr())
    assert "\\x1b" in told or what == "many"  # which names no file
    assert plain(told) == told


def test_a_process_that_opens_keys_leaves_no_core_dump(tmp_path: Path) -> None:
    code = """
import ctypes, resource, sys
from encdl.cli import main
main(["keygen", sys.argv[1]])
print(resource.getrlimit(resource.RLIMIT_CORE)[0], ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
    words = [sys.executable, "-c", code, str(tmp_path / "k.key")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.splitlines()[-1] == "0 0"
