"""`keygen --recipient`, `encrypt --recipient`, `recipients`, `grant --to`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from encdl.files import container, images
from tests.commands.conftest import Run, failed, noise


@pytest.fixture
def keys(run: Run) -> None:
    assert run("keygen", "--recipient", "-o", "one.key")[0] == 0
    assert run("keygen", "--recipient", "two.key")[0] == 0


def test_a_folder_gets_and_loses_recipients(run: Run, agile: Path, keys: None) -> None:
    weights = ["--weights", agile]
    Path("in").mkdir()
    for name in "abc":
        images.write(f"in/{name}.png", noise((20, 30)))
    assert run("encrypt", "in", "--key", "k.key", "-o", "enc", *weights)[0] == 0
    assert run("encrypt", "in", "--key", "k.key", "-o", "sealed", "--recipient", "one.pub", *weights)[0] == 0
    add = ["recipients", "add", "enc", "--key", "k.key", "--recipient", "one.pub", "--recipient", "two.pub"]
    Path("enc/b.png.encdl").rename("b")
    assert run(*add)[0] == 0
    Path("b").rename("enc/b.png.encdl")
    code, _, err = run(*add)
    assert (code, "1 file given more recipients, 2 finished before" in err) == (0, True)
    assert run("decrypt", "enc", "--key", "two.key", "-o", "dec", *weights)[0] == 0
    np.testing.assert_array_equal(images.read("dec/b.png"), images.read("in/b.png"))
    code, _, err = run("recipients", "remove", "enc", "--key", "one.key", "--recipient", "two.pub")
    assert code == 0
    assert "keeps what was opened or copied before" in err
    failed(run("decrypt", "enc/a.png.encdl", "--key", "two.key", *weights), "is not for recipient")
    ids = {container.recipients_of(path) for path in Path().glob("*/*.encdl")}
    assert len(ids) == 1
    told = [json.loads(line) for line in run("recipients", "list", "enc", "--json")[1].splitlines()]
    assert [tuple(one["recipients"]) for one in told] == [*ids] * 3
    assert json.loads(run("inspect", "enc/a.png.encdl", "--json")[1])["recipients"] == list(*ids)
    before = Path("sealed/a.png.encdl").read_bytes()
    assert run("encrypt", "in", "--key", "k.key", "-o", "sealed", "--recipient", "one.pub", *weights)[0] == 0
    assert Path("sealed/a.png.encdl").read_bytes() == before


def test_files_without_any_master_key(run: Run, agile: Path, keys: None) -> None:
    weights = ["--weights", agile]
    failed(run("encrypt", "scan.png", "-o", "s.encdl", *weights), "give --key, or --recipient")
    assert run("encrypt", "scan.png", "-o", "s.encdl", "--recipient", "one.pub", *weights)[0] == 0
    assert "none: it was made for its recipients alone" in run("inspect", "s.encdl")[1]
    failed(run("decrypt", "s.encdl", "--key", "k.key", *weights), "s.encdl: was encrypted for its recipients alone")
    remove = ["recipients", "remove", "s.encdl", "--key", "one.key", "--recipient", "one.pub"]
    failed(run(*remove), "s.encdl: no master key opens it")
    failed(run(*remove[:-2]), "nobody to take off")
    failed(run("encrypt", "scan.png", "-o", "t.encdl", "--key", "one.key", *weights), "makes none: give a master key")
    failed(run("grant", "--key", "one.key", "--file", "s.encdl", "-o", "x.grant"), "grants nothing")
    code, _, err = run("rekey", "s.encdl", "--key", "one.key", "--new-key", "k.key", *weights)
    assert code == 0
    assert "cannot open the new file" in err
    assert run("decrypt", "s.encdl", "--key", "k.key", "-o", "s.png", *weights)[0] == 0
    np.testing.assert_array_equal(images.read("s.png"), images.read("scan.png"))


def test_a_grant_is_sealed_to_its_reader(run: Run, agile: Path, keys: None) -> None:
    weights = ["--weights", agile]
    assert run("encrypt", "scan.png", "--key", "k.key", *weights)[0] == 0
    assert run("grant", "--key", "k.key", "--file", "scan.encdl", "--to", "one.pub", "-o", "x.grant")[0] == 0
    decrypt = ["decrypt", "scan.encdl", "--key", "x.grant", "-o", "b.png", *weights]
    failed(run(*decrypt), "give --recipient-key too")
    failed(run(*decrypt, "--recipient-key", "two.key"), "and yours is")
    assert run(*decrypt, "--recipient-key", "one.key")[0] == 0
    assert "opens one file" in run("keyinfo", "x.grant", "--recipient-key", "one.key")[1]


def test_whoever_is_no_recipient_is_not_taken_off(run: Run, agile: Path, keys: None) -> None:
    Path("in").mkdir()
    for name in "ab":
        images.write(f"in/{name}.png", noise((20, 30)))
    assert run("encrypt", "in", "--key", "k.key", "-o", "enc", "--recipient", "one.pub", "--weights", agile)[0] == 0
    remove = ["recipients", "remove", "enc", "--key", "k.key"]
    code, _, err = run(*remove, "--recipient", "two.pub")
    assert (code, "0 files given fewer recipients, 2 without them already" in err) == (0, True)
    assert "no file that opened was sealed to" in err
    one = ["recipients", "remove", "enc/a.png.encdl", "--key", "k.key", "--recipient"]
    failed(run(*one, "two.pub"), "enc/a.png.encdl: is not sealed to", "it has 1 recipient: ")
    assert run(*one, "one.pub")[0] == 0  # as a run does that is cut off after its first file
    code, _, err = run(*remove, "--recipient", "one.pub")
    assert (code, "1 file given fewer recipients, 1 without them already" in err) == (0, True)
    assert "no file that opened" not in err


def test_what_makes_no_files_is_refused_once(run: Run, agile: Path, keys: None) -> None:
    """Also names that are empty, as of a variable that is not set."""
    Path("in").mkdir()
    for name in "ab":
        images.write(f"in/{name}.png", noise((20, 30)))
    weights = ["--weights", agile]
    assert run("encrypt", "in", "--key", "k.key", "-o", "enc", *weights)[0] == 0
    assert run("grant", "--key", "k.key", "--file", "enc/a.png.encdl", "-o", "f.grant")[0] == 0
    rekey = ["rekey", "enc", "--key", "k.key", *weights, "--new-key"]
    for key, told in {
        "one.key": "makes none: give a master key or a grant for a study",
        "f.grant": "a grant for one file cannot encrypt",
        "one.pub": "is a recipient's public key, and a master key, a grant or a recipient's secret key is asked for",
        "none.key": "no key file none.key: check the path ('encdl keygen' makes a new key",
    }.items():
        code, _, err = run(*rekey, key)
        assert (code, err.count("\n"), told in err) == (2, 1, True), err
    encrypt = ["encrypt", "in", "-o", "x", "--key", "k.key"]
    failed(run(*encrypt, "--recipient", "none.pub"), "no public key file none.pub: check the path, or ask the key's")
    for words in (
        ["inspect", ""],
        ["decrypt", "enc", "-o", ""],
        *([*encrypt, option, ""] for option in ("--recipient", "--sign", "--weights", "--passphrase-env")),
        *(["decrypt", "enc", "-o", "x", option, ""] for option in ("--key", "--key-env", "--key-command")),
    ):
        failed(run(*words), "the name is empty")
