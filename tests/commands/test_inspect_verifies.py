"""`encdl inspect` with a key, or the owner's public key: whole files are verified, and it says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from encdl.files import images
from tests.commands.conftest import KEYED, Run, failed, noise


@pytest.mark.parametrize("settings", [[], ["--wrap", "aes"]])
def test_no_byte_of_a_verified_file_can_be_changed(run: Run, agile: Path, settings: list[str]) -> None:
    assert run("keygen", "--recipient", "r.key")[0] == 0
    options = [*KEYED, "--weights", agile, "--recipient", "r.pub", "--study", "S", "-o", "s.encdl", *settings]
    assert run("encrypt", "scan.png", *options)[0] == 0
    assert run("grant", *KEYED, "--file", "s.encdl", "-o", "f.grant")[0] == 0
    assert run("grant", *KEYED, "--study", "S", "-o", "s.grant")[0] == 0
    assert run("grant", *KEYED, "--study", "S", "--to", "r.pub", "-o", "r.grant")[0] == 0
    data = Path("s.encdl").read_bytes()
    for words in (["k.key"], ["f.grant"], ["s.grant"], ["r.key"], ["r.grant", "--recipient-key", "r.key"]):
        told = json.loads(run("inspect", "s.encdl", "--json", "--key", *words)[1])
        assert (told["verified_by"], told["sealed"]["format"]) == (["key"], "png")
        for place in (*range(0, len(data), 97), len(data) - 1):
            changed = bytearray(data)
            changed[place] ^= 4
            Path("bad.encdl").write_bytes(changed)
            code, out, _ = run("inspect", "bad.encdl", "--key", *words)
            assert (code, "verified with the key" in out) == (2, False), place
    Path("bad.encdl").write_bytes(data)
    failed(run("inspect", "bad.encdl", "--key", "other.key"), "with key")


def test_folders_say_what_was_verified(run: Run, agile: Path) -> None:
    assert run("keygen", "--signing", "s.key")[0] == 0
    Path("in").mkdir()
    for name in "abc":
        images.write(f"in/{name}.png", noise((20, 30)))
    Path("in/report.txt").write_text("no image")
    options = [*KEYED, "--weights", agile, "--sign", "s.key", "--carry-others", "-o", "enc"]
    assert run("encrypt", "in", *options)[0] == 0
    assert "4 files: as the owner of key" in run("inspect", "enc", "--verify-key", "s.pub")[1]
    out = run("inspect", "enc", *KEYED, "--verify-key", "s.pub")[1]
    for told in ("3 files: 20x30 uint8", "1 file: no image", "signed it; verified with the key"):
        assert told in out
    assert "1x1" not in out
    assert "no image" in run("inspect", "enc/report.txt.encdl", *KEYED)[1]
    assert "verified" not in run("inspect", "enc")[1]
    bad = Path("enc/b.png.encdl")
    bad.write_bytes(bad.read_bytes()[:900] + b"\0" * 9 + bad.read_bytes()[909:])
    for checks, told in ((KEYED, "3 files: verified"), (["--verify-key", "s.pub"], "3 files: as the owner")):
        code, out, err = run("inspect", "enc", *checks)
        assert (code, told in out, "enc/b.png.encdl: " in err) == (1, True, True)
