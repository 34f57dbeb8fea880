from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from encdl import ciphers
from encdl.ciphers import weights
from encdl.cli import main
from encdl.files import images

Run = Callable[..., tuple[int, str, str]]
"""Runs a command line; gives exit code, stdout and stderr."""
KEYED = ["--key", "k.key"]


def failed(result: tuple[int, str, str], *words: str) -> None:
    code, _, err = result
    assert code == 2
    for word in words:
        assert word in err


def noise(shape: tuple[int, ...], dtype: str = "uint8") -> images.Array:
    info = np.iinfo(dtype)
    return np.random.default_rng(1).integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Threads that wait for each other on a busy machine make tiny images forty times slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def agile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an untrained cipher: exact all the same."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "agile.pt"
    weights.save(ciphers.create("agile", {"width": 4, "blocks": 1}), path)
    return path


@pytest.fixture(scope="session")
def coupled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that do not come with EncDL, and decide the ciphertext; exact too."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "coupled.pt"
    weights.save(ciphers.create("coupled", {"width": 4, "blocks": 1}), path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with k.key, other.key and scan.png."""
    monkeypatch.chdir(tmp_path)
    for name in ("k.key", "other.key"):
        assert main(["keygen", name]) == 0
    images.write("scan.png", np.random.default_rng(0).integers(0, 256, (21, 30), dtype=np.uint8))
    return tmp_path


@pytest.fixture
def run(folder: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `encdl ...`; an error must be one line without a traceback, and leave no file behind."""

    def encdl(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        if code:
            errors = [line for line in err.splitlines() if not line.startswith("encdl: warning: ")]
            assert len(errors) == 1, err
            assert errors[0].startswith("encdl: error: ")
            assert "Traceback" not in err
            assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
        return code, out, err

    return encdl


@pytest.fixture
def scan(run: Run, agile: Path) -> Path:
    """scan.encdl, made from scan.png with k.key."""
    assert run("encrypt", "scan.png", "--key", "k.key", "--weights", agile)[0] == 0
    return Path("scan.encdl")


@pytest.fixture
def files(run: Run) -> list[Path]:
    """a.encdl, b.encdl and sub/c.encdl under k.key; classifier.ckpt and segmenter.ckpt."""
    from tests.reader_checkpoint import resnet, save_reader, smooth, tiny_reader, unet

    Path("sub").mkdir()
    found = []
    for seed, name in enumerate(["a", "b", "sub/c"]):
        images.write(f"{name}.png", smooth(seed))
        assert run("encrypt", f"{name}.png", *KEYED, "--study", f"S{seed}")[0] == 0
        found.append(Path(f"{name}.encdl"))
    save_reader("classifier.ckpt", tiny_reader(resnet))
    save_reader("segmenter.ckpt", tiny_reader(unet))
    return found


def rows(text: str) -> list[dict[str, str]]:
    """Of a CSV file."""
    return list(csv.DictReader(io.StringIO(text)))
