"""Functional keys of files: made with the key, used without it, and refused for anything else."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from numpy.random import default_rng

from encdl import api
from encdl.cli import main as encdl
from encdl.files import container
from encdl.files.container.sections import READING
from encdl.files.reading import ReadingLayer, RepairedWarning
from encdl.keys import Key
from encdl.keys.functional import FunctionalKey
from encdl.keys.recipients import RecipientKey
from encdl.keys.signing import SigningKey
from encdl.readers import FunctionalStem, MonaiNet, PlainStem, Reader, functional_files
from encdl.utils.errors import ContainerError, EncdlError, KeyFileError, UsageError, WeightsError, WrongKeyError
from tests.files.container.damage_trial import hit
from tests.mni import mni_slice
from tests.reader_checkpoint import resnet, save_reader, tiny_reader, unet

SIDE = 32
CLASSES = ["well", "ill", "unsure"]
Backbone = Callable[[int, int], MonaiNet]


def functional_reader(backbone: Backbone = resnet, seed: int = 0) -> Reader:
    torch.manual_seed(seed)
    stem = FunctionalStem(1, (SIDE, SIDE), outputs=2, kernel=8, stride=4, width=4)
    reader = Reader(stem, backbone(4, 3))
    for _ in range(3):  # statistics of batches, so that answers differ between images
        reader(torch.cat([mni_slice(index, SIDE, SIDE) for index in (60, 80, 100)]))
    return reader.eval()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keys, a reader, and two files with a reading layer, signed by their owner."""
    monkeypatch.chdir(tmp_path)
    Key.generate().save("k.key")
    for name in ("owner", "server"):
        signing = SigningKey.generate()
        signing.save(f"{name}.key")
        signing.public.save(f"{name}.pub")
    reader = functional_reader()
    save_reader("r.ckpt", reader, view="Functional", classes=CLASSES, size=[SIDE, SIDE])
    save_reader("other.ckpt", functional_reader(seed=1), view="Functional", classes=CLASSES, size=[SIDE, SIDE])
    owner = SigningKey.load("owner.key")
    for name, index in (("a", 85), ("b", 95)):
        image = mni_slice(index, SIDE, SIDE)[0, 0].numpy()
        Path(f"{name}.encdl").write_bytes(api.encrypt(image, "k.key", readable=SIDE, signer=owner))
    return tmp_path


@pytest.mark.parametrize("backbone", [resnet, unet])
def test_a_host_without_a_key_reads_what_the_reader_reads_of_the_image(folder: Path, backbone: Backbone) -> None:
    reader = functional_reader(backbone)
    save_reader("r.ckpt", reader, view="Functional", classes=CLASSES, size=[SIDE, SIDE])
    key = api.grant_functional("a.encdl", "k.key", "r.ckpt")
    answer = api.predict_functional("a.encdl", key, "r.ckpt")
    with torch.no_grad():
        plain = reader(mni_slice(85, SIDE, SIDE))[0]
    assert answer.logits.shape == plain.shape
    # A layer's levels are finer than the image's, which is rounding alone.
    assert torch.allclose(answer.logits, plain, atol=0.02 * float(plain.std()) + 1e-3)
    stem = reader.stem
    assert isinstance(stem, FunctionalStem)
    with container.opened("a.encdl", Key.load("k.key")) as opened:
        levels = ReadingLayer.from_bytes(opened.section(READING) or b"").levels(opened.image_keys)
    with container.opened_without_key("a.encdl") as opened_by_host:
        words = ReadingLayer.from_bytes(opened_by_host.section(READING) or b"").words
    function = stem.map.frozen()
    assert np.array_equal(key.seen(function, words), function.apply(levels))
    assert not np.array_equal(levels, words)


def test_the_command_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grant = ["grant", "--reader", "r.ckpt", "--key", "k.key", "--sign", "server.key"]
    assert encdl([*grant, "a.encdl", "-o", "a.fkey"]) == 0
    assert "learns 98 numbers of the image" in capsys.readouterr().out
    assert encdl(["keyinfo", "a.fkey"]) == 0
    told = capsys.readouterr().out
    assert "98 numbers of the image, 3,136 bits at most" in told
    assert f"with {SigningKey.load('server.key').public.id}" in told
    assert "give --reader" in told
    assert encdl(["keyinfo", "a.fkey", "--reader", "other.ckpt"]) == 2
    assert "is another reader than this functional key's" in capsys.readouterr().err
    assert encdl(["keyinfo", "a.fkey", "--reader", "r.ckpt"]) == 0
    assert "nobody recorded it" in capsys.readouterr().out
    Path("k.key").unlink()  # the host has none
    host = ["predict", "--functional-key", "a.fkey", "--reader", "r.ckpt", "--device", "cpu"]
    assert encdl([*host, "a.encdl", "--server-key", "server.pub", "--owner-key", "owner.pub"]) == 0
    [row] = csv.DictReader(capsys.readouterr().out.splitlines())
    answer = api.predict_functional("a.encdl", "a.fkey", "r.ckpt")
    assert row["predicted"] == CLASSES[int(answer.best)]


def test_a_functional_key_sealed_to_its_host(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("host", "another"):
        assert encdl(["keygen", "--recipient", f"{name}.key"]) == 0
    key = api.grant_functional("a.encdl", "k.key", "r.ckpt")
    words = ["grant", "--reader", "r.ckpt", "--key", "k.key", "--recipient", "host.pub", "a.encdl", "-o", "s.fkey"]
    assert encdl(words) == 0
    host = RecipientKey.load("host.key")
    assert f"Recipient {host.key_id} alone, with the file, learns 98 numbers" in capsys.readouterr().out
    sealed = Path("s.fkey").read_bytes()
    assert not any(
        part in sealed for part in (key.numbers.tobytes()[:16], key.reader.encode(), key.nonce.hex().encode())
    )
    for option in ([], ["--recipient-key", "host.key"]):
        assert encdl(["keyinfo", "s.fkey", *option]) == 0
        told = capsys.readouterr().out
        assert f"recipient {host.key_id}" in told
        assert ("98 numbers of the image" in told) == bool(option)
    predict = ["predict", "a.encdl", "--functional-key", "s.fkey", "--reader", "r.ckpt", "--device", "cpu"]
    assert encdl([*predict, "--recipient-key", "host.key"]) == 0
    [row] = csv.DictReader(capsys.readouterr().out.splitlines())
    assert row["predicted"] == CLASSES[int(api.predict_functional("a.encdl", key, "r.ckpt").best)]
    for place in (3, 9, 20, len(sealed) - 1):
        Path("changed.fkey").write_bytes(sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :])
        with pytest.raises(KeyFileError):
            FunctionalKey.load("changed.fkey", host)
    for option, said in (
        ([], "give --recipient-key too"),
        (["--recipient-key", "another.key"], f"is sealed to recipient {host.key_id}, and yours is"),
    ):
        assert encdl([*predict, *option]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert said in line


def test_a_folder_of_functional_keys(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("keys").mkdir()
    for name in ("a", "b"):
        api.grant_functional(f"{name}.encdl", "k.key", "r.ckpt").save(f"keys/{name}.fkey")
    words = ["predict", "a.encdl", "b.encdl", "--reader", "r.ckpt", "--device", "cpu", "--functional-key"]
    assert encdl([*words, "keys"]) == 0
    table = capsys.readouterr().out
    assert len(table.splitlines()) == 3
    store = fsspec.filesystem("memory")
    for name in ("a", "b"):
        store.put_file(f"{name}.encdl", f"/scans/in/{name}.encdl")
    assert encdl(["predict", "memory://scans/in", *words[3:], "keys"]) == 0
    assert [line.partition(",")[2] for line in capsys.readouterr().out.splitlines()] == [
        line.partition(",")[2] for line in table.splitlines()
    ]
    store.store.clear()
    assert encdl([*words, "keys/a.fkey"]) == 2
    assert "is for one file, and there are 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "b.encdl", "--functional-key", "a.fkey", "--reader", "r.ckpt"], "is for another file"),
        (["predict", "a.encdl", "--functional-key", "a.fkey", "--reader", "other.ckpt"], "is for reader"),
        (["predict", "a.encdl", "--functional-key", "a.fkey", "--reader", "plain.ckpt"], "takes no functional key"),
        (["predict", "a.encdl", "--functional-key", "k.key", "--reader", "r.ckpt"], "is no functional key"),
        (
            ["predict", "a.encdl", "--functional-key", "a.fkey", "--reader", "r.ckpt", "--server-key", "owner.pub"],
            "was not made by the key server",
        ),
        (
            ["predict", "a.encdl", "--functional-key", "a.fkey", "--reader", "r.ckpt", "--owner-key", "server.pub"],
            "does not fit public key",
        ),
        (
            ["predict", "bare.encdl", "--functional-key", "a.fkey", "--reader", "r.ckpt"],
            "encrypt it with --readable 32",
        ),
        (
            ["predict", "small.encdl", "--functional-key", "a.fkey", "--reader", "r.ckpt"],
            "its reading layer is 1x16x16",
        ),
        (["predict", "a.encdl", "--key", "k.key", "--server-key", "server.pub", "--reader", "r.ckpt"], "leave it out"),
        (["grant", "--reader", "r.ckpt", "--key", "k.key", "-o", "x.fkey"], "give the .encdl file"),
        (
            ["grant", "--reader", "r.ckpt", "--recipient", "owner.pub", "--key", "k.key", "a.encdl", "-o", "x.fkey"],
            "owner.pub",
        ),
        (["grant", "--file", "a.encdl", "--noise", "2", "--key", "k.key", "-o", "x"], "is for functional keys"),
        (["grant", "--reader", "plain.ckpt", "--key", "k.key", "a.encdl", "-o", "x.fkey"], "takes no functional key"),
        (["grant", "--reader", "r.ckpt", "--key", "l.key", "a.encdl", "-o", "x.fkey"], "l.key"),
    ],
)
def test_refusals_take_one_line(folder: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    api.grant_functional("a.encdl", "k.key", "r.ckpt", signer=SigningKey.load("server.key")).save("a.fkey")
    save_reader("plain.ckpt", tiny_reader(resnet, PlainStem), view="Plaintext")
    image = mni_slice(85, SIDE, SIDE)[0, 0].numpy()
    Path("bare.encdl").write_bytes(api.encrypt(image, "k.key"))
    Path("small.encdl").write_bytes(api.encrypt(image, "k.key", readable=16))
    capsys.readouterr()
    assert encdl(words) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
    assert not Path("x.fkey").exists()


def test_a_changed_file_is_refused(folder: Path) -> None:
    owner, key = SigningKey.load("owner.key").public, api.grant_functional("a.encdl", "k.key", "r.ckpt")
    whole = Path("a.encdl").read_bytes()
    host = api.load_functional_reader("r.ckpt", device="cpu", owner=owner)
    for place in (40, len(whole) // 2, len(whole) - 200):
        Path("a.encdl").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(EncdlError):
            host.read("a.encdl", key)
        with pytest.raises((ContainerError, UsageError)):
            container.verify("a.encdl", Key.load("k.key"))


def test_a_file_hit_on_1_per_cent_of_its_bytes_reads_as_it_was(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, whole, rng = api.grant_functional("a.encdl", "k.key", "r.ckpt"), Path("a.encdl").read_bytes(), default_rng(0)
    intact = api.predict_functional("a.encdl", key, "r.ckpt").logits
    pinned = api.load_functional_reader("r.ckpt", device="cpu", owner=SigningKey.load("owner.key").public)
    for _ in range(5):
        Path("a.encdl").write_bytes(hit(whole, 0.01, rng))
        with pytest.warns(RepairedWarning, match="a.encdl: its reading layer was hit, and repaired"):
            assert torch.equal(api.predict_functional("a.encdl", key, "r.ckpt").logits, intact)
        with pytest.raises(EncdlError):  # repaired is not authentic
            pinned.read("a.encdl", key)
    key.save("a.fkey")
    words = ["predict", "a.encdl", "--functional-key", "a.fkey", "--reader", "r.ckpt", "--device", "cpu"]
    assert encdl(words) == 0
    assert "its reading layer was hit, and repaired" in capsys.readouterr().err
    Path("a.encdl").write_bytes(hit(whole, 0.08, rng))
    assert encdl(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "a.encdl: " in line


def test_grants_make_functional_keys_for_what_they_open(folder: Path) -> None:
    whole = api.grant_functional("a.encdl", "k.key", "r.ckpt")
    grant = api.grant("k.key", file="a.encdl")
    assert api.grant_functional("a.encdl", grant, "r.ckpt").to_bytes() == whole.to_bytes()
    with pytest.raises(WrongKeyError):
        api.grant_functional("b.encdl", grant, "r.ckpt")
    noisy = [api.grant_functional("a.encdl", "k.key", "r.ckpt", noise=20.0) for _ in range(2)]
    assert noisy[0].to_bytes() == noisy[1].to_bytes() != whole.to_bytes()
    with pytest.raises(WeightsError, match="no such checkpoint"):
        api.predict_functional("a.encdl", whole, "none.ckpt")
    assert isinstance(whole, FunctionalKey)


def test_a_header_is_all_that_a_key_server_needs(folder: Path) -> None:
    reader = functional_reader()
    assert isinstance(reader.stem, FunctionalStem)
    function, key = reader.stem.map.frozen(), Key.load("k.key")
    with container.opened_without_key("a.encdl") as opened:
        head = opened.head
    made = functional_files.grant_from_header(head, key, function)
    assert made.to_bytes() == api.grant_functional("a.encdl", "k.key", "r.ckpt").to_bytes()
    for place in range(20, len(head), 9):
        with pytest.raises(EncdlError):
            functional_files.grant_from_header(
                head[:place] + bytes([head[place] ^ 1]) + head[place + 1 :], key, function
            )
