"""Plaintext does not outlive a process that was stopped, and is its owner's alone while it is written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from encdl.cli import main
from encdl.utils import atomic

RUN = (
    "import signal, sys; from encdl.cli import main; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "sys.exit(main(sys.argv[1:]))"
)
WEIGHTS = ["--weights", str(Path(__file__).parents[1] / "golden" / "containers" / "tiny.pt"), "--device", "cpu"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU", "SIGUSR1"])
def test_a_signal_leaves_no_plaintext(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.random.default_rng(0).integers(0, 255, (200, 256, 256)).astype(np.uint8))
    assert main(["keygen", "k.key"]) == main(["encrypt", "a.npy", "--key", "k.key", *WEIGHTS]) == 0
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "decrypt", "a.encdl", "--key", "k.key", "-o", "b.npy", *WEIGHTS],
        stderr=subprocess.PIPE,
    )
    part = Path(".b.npy.part")
    while process.poll() is None and not (part.exists() and part.stat().st_size):
        time.sleep(0.005)
    mode = part.stat().st_mode & 0o777 if part.exists() else 0o600
    process.send_signal(signal.Signals[name])
    _, err = process.communicate()
    assert mode == 0o600
    assert not part.exists()
    if process.returncode:  # or it was faster than the signal
        assert process.returncode == 128 + signal.Signals[name]
        assert err.count(b"\n") == 1
        assert not Path("b.npy").exists()


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_secret_file_is_private_while_it_is_written(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "a"
    for force in (False, True):
        with atomic.writing(target, force=force, mode=mode) as stream:
            assert os.fstat(stream.fileno()).st_mode & 0o777 == 0o600
        assert target.stat().st_mode & 0o777 == mode
        target.chmod(0o666)
