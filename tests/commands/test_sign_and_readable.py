"""`keygen --signing`, `encrypt --sign --readable`, `inspect --verify-key`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from encdl.cli import main
from encdl.files import images
from tests.commands.conftest import Run, failed, noise


def test_a_host_without_any_key_verifies_what_the_owner_signed(run: Run, agile: Path) -> None:
    code, out, _ = run("keygen", "--signing", "s.key")
    assert code == 0
    assert "s.pub: its public key" in out
    assert Path("s.key").read_text().split(":")[1].strip() not in out
    options = ["--key", "k.key", "--weights", agile, "--sign", "s.key", "--readable", "16"]
    assert run("encrypt", "scan.png", *options)[0] == 0
    code, out, _ = run("inspect", "scan.encdl", "--verify-key", "s.pub")
    assert code == 0
    assert "signed it" in out
    told = json.loads(run("inspect", "scan.encdl", "--json", "--verify-key", "s.pub")[1])
    assert told["verified"]
    names = [section["name"] for section in told["sections"]]
    assert names == ["metadata", "parity", "pixels", "series", "reading", "reading-parity", "signature"]
    assert not json.loads(run("inspect", "scan.encdl", "--json")[1])["verified"]
    run("keygen", "--signing", "s2.key")
    failed(run("inspect", "scan.encdl", "--verify-key", "s2.pub"), "scan.encdl: says it was signed with")
    failed(run("inspect", "scan.encdl", "--verify-key", "s.key"), "a public key is asked for")
    data = bytearray(Path("scan.encdl").read_bytes())
    data[-500] ^= 1  # of the reading layer
    Path("bad.encdl").write_bytes(data)
    failed(run("inspect", "bad.encdl", "--verify-key", "s.pub"), "bad.encdl: was changed after it was signed")
    failed(run("decrypt", "bad.encdl", "--key", "k.key", "--weights", agile), "its section 'reading' was changed")
    assert run("decrypt", "scan.encdl", "--key", "k.key", "--weights", agile, "-o", "b.png")[0] == 0
    np.testing.assert_array_equal(images.read("b.png"), images.read("scan.png"))
    assert run("keygen", "new.key")[0] == 0
    code, _, err = run("rekey", "scan.encdl", "--key", "k.key", "--new-key", "new.key", "--weights", agile)
    assert code == 0
    assert "its signature was of the old file" in err
    failed(run("inspect", "scan.encdl", "--verify-key", "s.pub"), "is not signed")


def test_a_folder_goes_on_where_signature_and_layer_are_the_same(
    run: Run, agile: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("in").mkdir()
    for name in ("a", "b"):
        images.write(f"in/{name}.png", noise((20, 30)))
    assert run("keygen", "--signing", "s.key")[0] == 0
    options = ["in", "--key", "k.key", "--weights", agile, "-o", "out"]
    Path("out").mkdir()
    signed = [*options, "--sign", "s.key", "--readable", "8"]
    assert run("encrypt", *signed)[0] == 0
    before = Path("out/a.png.encdl").read_bytes()
    assert run("encrypt", *signed)[0] == 0
    assert Path("out/a.png.encdl").read_bytes() == before
    assert run("inspect", "out", "--verify-key", "s.pub")[0] == 0
    for other in (options, [*signed[:-1], "9"], [*options, "--readable", "8"]):
        assert main(["encrypt", *map(str, other)]) == 2
        assert capfd.readouterr().err.count(".encdl: exists already, made with other settings") == 2


def test_options_that_do_not_go_together(run: Run, agile: Path) -> None:
    options = ["scan.png", "--key", "k.key", "--weights", agile, "-o", "n.encdl"]
    failed(run("encrypt", *options, "--window", "0", "80"), "give --readable too")
    failed(run("encrypt", *options, "--readable", "0"), "sides of 1 to 512")
    failed(
        run("encrypt", *options, "--readable", "9", "--window", "80", "0"), "a window is a centre and a width above 0"
    )
    failed(run("encrypt", *options, "--readable", "9", "--window", "knee"), "there is no window 'knee'")
    failed(run("encrypt", *options, "--readable", "9", "--wrap", "aes"), "inside --wrap aes")
    failed(run("encrypt", *options, "--sign", "k.key"), "a signing key is asked for")
    failed(run("keygen", "--signing", "s.pub"), "give the secret key another ending")
    assert run("encrypt", *options, "--wrap", "aes")[0] == 0
    failed(run("inspect", "n.encdl", "--verify-key", "k.key"), "a public key is asked for")
