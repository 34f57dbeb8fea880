"""Salvaging and rekeying of single files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encdl.ciphers import weights
from encdl.files import container, images
from tests.commands.conftest import Run, failed, noise


def report(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(f"{name}.salvage.json").read_text())
    return content


def test_salvage(run: Run, scan: Path, agile: Path) -> None:
    options = ["--key", "k.key", "--weights", agile, "--salvage", "--force", "-o", "b.npy"]
    code, out, err = run("decrypt", scan, *options)
    assert (code, err) == (0, "")
    assert "salvaged" not in out
    assert not Path("b.npy.salvage.json").exists()
    np.testing.assert_array_equal(images.read("b.npy"), images.read("scan.png"))
    data = scan.read_bytes()
    Path("cut.encdl").write_bytes(data[:-260])  # a section, a tag and 200 pixels
    code, out, err = run("decrypt", "cut.encdl", *options)
    assert code == 0
    assert "salvaged: see b.npy.salvage.json" in out
    assert "1 of 1 slices damaged and restored, a best guess" in err
    assert "31.7 % of the pixels are missing" in err
    assert "not for diagnosis" in err
    assert images.read("b.npy").shape == (21, 30)
    told = report("b.npy")
    assert (told["damaged_slices"], told["slices"], told["metadata"]) == ([1], 1, "authentic")
    assert told["note"] in err
    Path("bad.encdl").write_bytes(data[:-134] + b"\0\0" + data[-132:])
    assert "missing" not in run("decrypt", "bad.encdl", *options)[2]
    failed(run("decrypt", "bad.encdl", *options[2:], "--key", "other.key"), "yours is")
    Path("head.encdl").write_bytes(data[: -21 * 30 - 16 - 44])
    failed(run("decrypt", "head.encdl", *options), "nothing is left to salvage")
    failed(run("decrypt", "none.encdl", *options), "no such file")


def test_without_being_told_nothing_of_a_damaged_file_is_written(run: Run, scan: Path, agile: Path) -> None:
    data = scan.read_bytes()
    options = ["--key", "k.key", "--weights", agile, "-o", "b.npy"]
    for place in range(0, len(data), 37):
        Path("bad.encdl").write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        failed(run("decrypt", "bad.encdl", *options), "bad.encdl: ", "or try --salvage")
        assert not Path("b.npy").exists()
    failed(run("decrypt", scan, *options, "--salvage", "--skip-damaged"), "not allowed with")


def volume(agile: Path, run: Run) -> images.Array:
    """A volume of six slices, encrypted as v.encdl, and as bad.encdl with slices 2 and 5 damaged."""
    array = noise((6, 20, 9), "uint16")
    np.save("v.npy", array)
    assert run("encrypt", "v.npy", "--key", "k.key", "--weights", agile)[0] == 0
    data = bytearray(Path("v.encdl").read_bytes())
    for number in (1, 4):
        data[-(6 - number) * (360 + 16) + 100] ^= 1
    Path("bad.encdl").write_bytes(data)
    return array


def test_damaged_slices_are_named_and_the_others_open(run: Run, agile: Path) -> None:
    array = volume(agile, run)
    options = ["--key", "k.key", "--weights", agile, "-o", "b.npy"]
    failed(run("decrypt", "bad.encdl", *options), "bad.encdl: slices 2, 5 of 6 were changed", "--salvage")
    assert not Path("b.npy").exists()
    code, _, err = run("decrypt", "bad.encdl", *options, "--skip-damaged")
    assert code == 0
    assert "2 of 6 slices damaged and left blank" in err
    back = np.load("b.npy")
    np.testing.assert_array_equal(back[[0, 2, 3, 5]], array[[0, 2, 3, 5]])
    assert not back[[1, 4]].any()
    assert (report("b.npy")["damaged_slices"], report("b.npy")["damaged_slices_are"]) == ([2, 5], "blank")
    code, _, err = run("decrypt", "bad.encdl", *options, "--salvage", "--force")
    assert code == 0
    assert "2 of 6 slices damaged and restored" in err
    back = np.load("b.npy")
    np.testing.assert_array_equal(back[[0, 2, 3, 5]], array[[0, 2, 3, 5]])
    assert back[[1, 4]].any()
    assert report("b.npy")["damaged_slices_are"] == "restored"


def test_a_salvage_that_fails_leaves_no_report(run: Run, scan: Path, agile: Path) -> None:
    Path("cut.encdl").write_bytes(scan.read_bytes()[:-260])
    images.write("b.npy", noise((3, 3)))
    options = ["--key", "k.key", "--weights", agile, "-o", "b.npy", "--salvage"]
    failed(run("decrypt", "cut.encdl", *options), "exists already")


def test_rekey_in_place(run: Run, scan: Path, agile: Path) -> None:
    scan.chmod(0o640)
    before = container.read_header(scan)
    code, out, _ = run("rekey", scan, "--key", "k.key", "--new-key", "other.key", "--weights", agile)
    assert code == 0
    after = container.read_header(scan)
    changed = {name for name in vars(before) if getattr(before, name) != getattr(after, name)}
    assert {name for name in changed if name != "grid"} == {"key_id", "nonce"}
    assert out == f"scan.encdl: from key {before.key_id} to key {after.key_id}\n"
    assert scan.stat().st_mode & 0o777 == 0o640
    failed(run("decrypt", scan, "--key", "k.key", "--weights", agile, "-o", "b.png"), "yours is")
    assert run("decrypt", scan, "--key", "other.key", "--weights", agile, "-o", "b.png")[0] == 0
    np.testing.assert_array_equal(images.read("b.png"), images.read("scan.png"))


def test_the_same_key_revokes_nothing_and_is_refused(run: Run, agile: Path) -> None:
    options = ["--weights", agile, "--key", "k.key"]
    assert run("encrypt", "scan.png", *options, "--study", "S")[0] == 0
    assert run("grant", "--key", "k.key", "--study", "S", "-o", "S.grant")[0] == 0
    before = container.read_header("scan.encdl").nonce
    for new in ("k.key", "S.grant"):
        failed(run("rekey", "scan.encdl", *options, "--new-key", new), "give another key, and rekey every copy")
    failed(run("rekey", "scan.encdl", *options[:2], "--key", "S.grant", "--new-key", "k.key"), "are the same")
    assert container.read_header("scan.encdl").nonce == before
    assert run("rekey", "scan.encdl", *options, "--new-key", "k.key", "--same-key")[0] == 0
    assert container.read_header("scan.encdl").nonce != before


def test_rekey_to_another_file(run: Run, scan: Path, agile: Path) -> None:
    options = ["--key", "k.key", "--new-key", "other.key", "--weights", agile, "-o", "new.encdl"]
    before = scan.read_bytes()
    assert run("rekey", scan, *options)[0] == 0
    assert scan.read_bytes() == before
    failed(run("rekey", scan, *options), "new.encdl: exists already")
    assert run("rekey", scan, *options, "--force")[0] == 0
    failed(run("rekey", scan, *options[:-1], "other.key", "--force"), "same file as the input other.key")
    failed(run("rekey", scan, "--key", "other.key", "--new-key", "k.key", "--weights", agile), "yours is")


def test_rekey_refuses_what_would_lose_something(
    run: Run, scan: Path, agile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights.save(weights.ciphers.create("thesis", {}), tmp_path / "thesis.pt")
    assert run("encrypt", "scan.png", "--key", "k.key", "--weights", "thesis.pt", "-o", "t.encdl")[0] == 0
    options = ["--key", "k.key", "--new-key", "other.key"]
    failed(run("rekey", "t.encdl", *options, "--weights", "thesis.pt"), "would lose quality")
    cut = Path("cut.encdl")
    cut.write_bytes(scan.read_bytes()[:-1])
    failed(run("rekey", cut, *options, "--weights", agile), "is cut")
    right = images.read("scan.png")[None, None]
    results = iter([right, right + 1])
    monkeypatch.setattr("encdl.ciphers.compiled_ciphers.ArrayChunks.decrypt", lambda *_: next(results))
    failed(run("rekey", scan, *options, "--weights", agile), "would not decrypt to the same image")


def test_rekey_for_a_study_grant(run: Run, agile: Path) -> None:
    for study in ("S", "T"):
        assert run("grant", "--key", "other.key", "--study", study, "-o", f"{study}.grant")[0] == 0
    options = ["--weights", agile]
    assert run("encrypt", "scan.png", "--key", "k.key", "--study", "S", *options)[0] == 0
    failed(run("rekey", "scan.encdl", "--key", "k.key", "--new-key", "T.grant", *options), "study 'T', not 'S'")
    assert run("rekey", "scan.encdl", "--key", "k.key", "--new-key", "S.grant", *options)[0] == 0
    assert run("decrypt", "scan.encdl", "--key", "other.key", *options, "-o", "b.png")[0] == 0
