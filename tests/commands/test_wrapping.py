"""`--wrap aes`: the same verbs on files in AES-256-GCM."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from encdl.cli import main
from encdl.commands.encrypt import WRAPPINGS
from encdl.files import container, images
from encdl.files.container import aes_wrap
from encdl.keys.key import Key
from tests.commands.conftest import Run
from tests.commands.test_files import failed

KEYED = ["--key", "k.key"]


@pytest.fixture
def sealed(run: Run, agile: Path) -> Path:
    """sealed.encdl, made from scan.png with k.key in study S."""
    options = ["--weights", agile, "--study", "S", "--wrap", "aes", "-o", "sealed.encdl"]
    assert run("encrypt", "scan.png", *KEYED, *options)[0] == 0
    return Path("sealed.encdl")


def test_round_trip(run: Run, sealed: Path, agile: Path) -> None:
    assert sealed.read_bytes().startswith(aes_wrap.MAGIC)
    for word in (b"agile", b"uint8", b"postprocess", b'"shape"'):
        assert word not in sealed.read_bytes()
    assert run("decrypt", sealed, *KEYED, "--weights", agile, "-o", "b.png")[0] == 0
    np.testing.assert_array_equal(images.read("b.png"), images.read("scan.png"))
    assert Path("b.png").read_bytes() == Path("scan.png").read_bytes()


def test_inspect_shows_the_key_and_no_more(run: Run, sealed: Path) -> None:
    code, out, _ = run("inspect", sealed)
    assert code == 0
    assert "wrapped in AES-256-GCM" in out
    assert Key.load("k.key").id in out
    assert "agile" not in out
    code, out, _ = run("inspect", sealed, "--json")
    assert json.loads(out).keys() == {
        "file", "file_bytes", "key_id", "nonce", "recipients", "sealed", "study", "verified", "verified_by", "wrap"
    }  # fmt: skip
    sealed.write_bytes(sealed.read_bytes()[:50])
    failed(run("inspect", sealed), "sealed.encdl: is cut in its header")


def test_rekey_keeps_the_wrapping(run: Run, sealed: Path, agile: Path) -> None:
    options = ["--new-key", "other.key", "--weights", agile]
    assert run("rekey", sealed, *KEYED, *options)[0] == 0
    header = container.read_wrapping(sealed)
    assert header is not None
    assert header.key_id == Key.load("other.key").id == container.key_id_of(sealed)
    failed(run("decrypt", sealed, *KEYED, "--weights", agile, "-o", "b.png"), "sealed.encdl: was wrapped with key")
    assert run("decrypt", sealed, "--key", "other.key", "--weights", agile, "-o", "b.png")[0] == 0
    np.testing.assert_array_equal(images.read("b.png"), images.read("scan.png"))


def test_grants_open_their_own(run: Run, sealed: Path, agile: Path) -> None:
    options = ["--weights", agile, "-o", "b.png", "--force"]
    assert run("grant", *KEYED, "--study", "S", "-o", "S.grant")[0] == 0
    assert run("grant", *KEYED, "--study", "T", "-o", "T.grant")[0] == 0
    assert run("grant", *KEYED, "--file", sealed, "-o", "f.grant")[0] == 0
    for name in ("S.grant", "f.grant"):
        assert run("decrypt", sealed, "--key", name, *options)[0] == 0
    failed(run("decrypt", sealed, "--key", "T.grant", *options), "this grant opens study 'T'")


def test_damage(run: Run, sealed: Path, agile: Path) -> None:
    data = bytearray(sealed.read_bytes())
    data[-40] ^= 1
    Path("bad.encdl").write_bytes(data)
    options = ["--weights", agile, "-o", "b.png"]
    failed(run("decrypt", "bad.encdl", *KEYED, *options), "bad.encdl: was changed or cut after it was written")
    failed(run("grant", *KEYED, "--file", "bad.encdl", "-o", "g"), "was changed or cut")
    # One chunk of AES holds all of a small image: nothing is left to salvage.
    failed(run("decrypt", "bad.encdl", *KEYED, *options, "--salvage"), "the beginning of its wrapping is damaged")


def test_salvage_of_a_large_one(run: Run, agile: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 4096, (9, 96, 96), dtype=np.int16)
    np.save("v.npy", volume)
    assert run("encrypt", "v.npy", *KEYED, "--weights", agile, "--wrap", "aes")[0] == 0
    data = bytearray(Path("v.encdl").read_bytes())
    data[2 * 2**16 + 100] ^= 1  # in the third chunk of AES
    Path("bad.encdl").write_bytes(data)
    options = ["--weights", agile, "-o", "b.npy", "--skip-damaged"]
    assert run("decrypt", "bad.encdl", *KEYED, *options)[0] == 0
    report = json.loads(Path("b.npy.salvage.json").read_text())
    found, damaged = np.load("b.npy"), [number - 1 for number in report["damaged_slices"]]
    assert 0 < len(damaged) < 7
    kept = [number for number in range(9) if number not in damaged]
    np.testing.assert_array_equal(found[kept], volume[kept])
    assert not found[damaged].any()


def test_a_folder_is_resumed_only_with_the_same_wrapping(
    run: Run, agile: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("in").mkdir()
    for name in ("a", "b"):
        images.write(f"in/{name}.png", np.random.default_rng(1).integers(0, 256, (5, 6), dtype=np.uint8))
    options = ["in", *KEYED, "--weights", agile, "-o", "out"]
    assert run("encrypt", *options, "--wrap", "aes")[0] == 0
    before = Path("out/a.png.encdl").read_bytes()
    assert run("encrypt", *options, "--wrap", "aes")[0] == 0
    assert Path("out/a.png.encdl").read_bytes() == before
    assert main([str(word) for word in ("encrypt", *options)]) != 0
    assert capfd.readouterr().err.count("exists already, made with other settings") == 2


def test_the_choices_are_those_of_the_codec(run: Run) -> None:
    assert WRAPPINGS == ("none", "aes")
    failed(run("encrypt", "scan.png", *KEYED, "--wrap", "des"), "invalid choice: 'des'")
