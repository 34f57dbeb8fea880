from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encdl.ciphers import postprocess, weights
from encdl.ciphers.names import POSTPROCESS, SHIPPED_IDS
from encdl.commands import decrypt, encrypt, inspect, rekey
from encdl.commands.encrypt import NONCES
from encdl.files import container, images
from encdl.files.settings import NONCE_MODES
from encdl.keys.key import Key
from encdl.keys.sequences import MAPS
from tests.commands.conftest import Run, failed, noise


def test_the_choices_are_those_of_the_library() -> None:
    assert POSTPROCESS == postprocess.NAMES
    assert NONCES == NONCE_MODES


def test_encrypt_and_decrypt(run: Run, scan: Path, agile: Path) -> None:
    original = images.read("scan.png")
    assert original.tobytes() not in scan.read_bytes()
    code, out, err = run("decrypt", scan, "--key", "k.key", "--weights", agile, "-o", "back.png")
    assert (code, err) == (0, "")
    assert out.startswith("back.png: 21x30 uint8")
    np.testing.assert_array_equal(images.read("back.png"), original, strict=True)


CASES = [
    ("a.png", (1, 1), "uint8"), ("a.png", (1, 9), "uint16"), ("a.png", (7, 5, 3), "uint8"),
    ("a.png", (7, 5, 4), "uint8"), ("a.png", (7, 5, 2), "uint8"), ("a.png", (7, 5, 3), "uint16"),
    ("a.png", (7, 5, 4), "uint16"),
    ("a.tif", (7, 5), "int16"), ("a.tiff", (7, 5, 3), "uint16"), ("a.tiff", (9, 2, 2), "int16"),
    ("a.npy", (7, 5, 6), "int16"), ("a.npy", (33, 1), "uint16"), ("a.npy", (5, 4, 1), "uint8"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shape", "dtype"), CASES, ids=str)
def test_every_kind_of_image_comes_back(run: Run, agile: Path, name: str, shape: tuple[int, ...], dtype: str) -> None:
    images.write(name, noise(shape, dtype))
    assert run("encrypt", name, "--key", "k.key", "--weights", agile)[0] == 0
    Path(name).unlink()
    assert run("decrypt", "a.encdl", "--key", "k.key", "--weights", agile)[0] == 0
    np.testing.assert_array_equal(images.read(name), noise(shape, dtype), strict=True)


@pytest.mark.parametrize("name", list(MAPS))
def test_every_map(run: Run, agile: Path, name: str) -> None:
    assert run("encrypt", "scan.png", "--key", "k.key", "--weights", agile, "--map", name)[0] == 0
    assert run("decrypt", "scan.encdl", "--key", "k.key", "--weights", agile, "-o", "b.npy")[0] == 0
    np.testing.assert_array_equal(images.read("b.npy"), images.read("scan.png"), strict=True)


@pytest.mark.parametrize("process", POSTPROCESS)
@pytest.mark.parametrize("expansion", [["full"], ["coprime", "--period", "9"]], ids=lambda e: e[0])
def test_settings_travel_with_the_file(run: Run, agile: Path, process: str, expansion: list[str]) -> None:
    options = ["--postprocess", process, "--nonce", "synthetic", "--study", "S", "--expansion", *expansion]
    assert run("encrypt", "scan.png", "--key", "k.key", "--weights", agile, *options)[0] == 0
    header = container.read_header("scan.encdl")
    assert (header.postprocess, header.study, header.planes.expansion) == (process, "S", expansion[0])
    assert run("decrypt", "scan.encdl", "--key", "k.key", "--weights", agile, "-o", "b.png")[0] == 0
    np.testing.assert_array_equal(images.read("b.png"), images.read("scan.png"))


def test_the_leaky_expansion_warns_once_and_only_on_encryption(run: Run, agile: Path) -> None:
    options = ["--key", "k.key", "--weights", str(agile)]
    code, _, err = run("encrypt", "scan.png", *options, "--expansion", "periodic", "--period", "8")
    assert code == 0
    assert err.startswith("encdl: warning: expansion 'periodic'")
    assert err.count("\n") == 1
    assert run("decrypt", "scan.encdl", *options, "-o", "b.png")[2] == ""


def test_a_chaotic_map_alone_warns_once_and_only_on_encryption(run: Run, agile: Path) -> None:
    options = ["--key", "k.key", "--weights", str(agile)]
    code, _, err = run("encrypt", "scan.png", *options, "--map", "tent")
    assert code == 0
    assert err.startswith("encdl: warning: map 'tent' alone is worth 94 bits of the key's 256")
    assert err.count("\n") == 1
    assert run("decrypt", "scan.encdl", *options, "-o", "b.png")[2] == ""


def test_the_synthetic_nonce_warns_that_equal_images_show(run: Run, agile: Path) -> None:
    options = ["scan.png", "--key", "k.key", "--weights", str(agile), "--nonce", "synthetic"]
    for name in ("a.encdl", "b.encdl"):
        code, _, err = run("encrypt", *options, "-o", name)
        assert code == 0
        assert err.startswith("encdl: warning: --nonce synthetic: equal images")
    assert Path("a.encdl").read_bytes() == Path("b.encdl").read_bytes()


def test_wrong_inputs_of_encrypt(run: Run, folder: Path, agile: Path) -> None:
    def encrypt(*words: object, key: str = "k.key") -> tuple[int, str, str]:
        return run("encrypt", *words, "--key", key, "--weights", agile)

    (folder / "empty.png").touch()
    np.save("objects.npy", np.array([None, {}]), allow_pickle=True)
    failed(encrypt("none.png"), "none.png: no such file")
    failed(encrypt("empty.png"), "empty.png: is empty")
    failed(encrypt("objects.npy"), "objects.npy: ")
    failed(encrypt("."), "need a folder for the results", "--output")
    failed(encrypt("k.key"), "k.key: is not an image of a known kind")
    failed(encrypt("scan.png", key="none.key"), "no key file none.key")
    failed(encrypt("scan.png", key="scan.png"), "scan.png is not a key file")
    failed(encrypt("scan.png", key="empty.png"), "empty.png is empty")
    failed(encrypt("scan.png", key="."), "is a folder")
    failed(encrypt("scan.png", "-o", "b.png"), "an encrypted file is no .png image")
    failed(encrypt("scan.png", "-o", "no/b.encdl"), "no folder no")
    failed(encrypt("scan.png", "-o", folder), "is a folder")
    failed(encrypt("scan.png", "-o", "k.key", "--force"), "same file as the input k.key")
    failed(encrypt("scan.png", "--expansion", "coprime"), "period")
    failed(encrypt("scan.png", "--period", "5"), "period")
    failed(encrypt("scan.png", "--map", "henon"), "invalid choice: 'henon'")
    failed(encrypt("scan.png", "--study", "a\nb"), "study")
    failed(encrypt("scan.png", "--nonce", "fixed"), "invalid choice: 'fixed'")


def test_output_that_is_the_input_or_is_there(run: Run, scan: Path, agile: Path) -> None:
    options = ["--key", "k.key", "--weights", agile]
    failed(run("encrypt", "scan.png", *options), "scan.encdl: exists already", "--force")
    assert run("encrypt", "scan.png", *options, "--force")[0] == 0
    images.write("raw.npy", noise((3, 3)))
    os.rename("raw.npy", "raw")
    failed(run("encrypt", "raw", *options, "-o", "raw", "--force"), "same file as the input raw")
    failed(run("decrypt", scan, *options), "scan.png: exists already")
    os.symlink("scan.encdl", "link.png")
    failed(run("decrypt", scan, *options, "-o", "link.png", "--force"), "same file as the input")


def test_a_folder_that_cannot_be_written(run: Run, scan: Path, agile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.open

    def denied(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and str(path).endswith(".part"):
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, flags, mode)

    monkeypatch.setattr(os, "open", denied)
    options = ["--key", "k.key", "--weights", agile]
    failed(
        run("encrypt", "scan.png", *options, "-o", "b.encdl"), "error: b.encdl: Permission denied: nothing was written"
    )
    failed(run("decrypt", scan, *options, "-o", "b.png"), "error: b.png: Permission denied: nothing was written")
    failed(run("rekey", scan, *options, "--new-key", "other.key"), "scan.encdl: Permission denied")


def test_wrong_inputs_of_decrypt(run: Run, scan: Path, agile: Path) -> None:
    def decrypt(*words: object, key: str = "k.key", out: str = "b.png") -> tuple[int, str, str]:
        return run("decrypt", *words, "--key", key, "--weights", agile, "-o", out)

    mine, other = Key.load("k.key"), Key.load("other.key")
    failed(decrypt("none.encdl"), "none.encdl: no such file")
    failed(decrypt("scan.png"), "scan.png: is not an EncDL file")
    failed(decrypt(".", out="scan.png"), "scan.png: is a file: the results go into a folder")
    failed(decrypt(scan, key="other.key"), f"encrypted with key {mine.id}, yours is {other.id}")
    failed(decrypt(scan, out="no/b.png"), "no folder no")
    images.write("neg.npy", noise((3, 3), "int16"))
    assert run("encrypt", "neg.npy", "--key", "k.key", "--weights", agile)[0] == 0
    failed(decrypt("neg.encdl"), "PNG cannot hold int16")
    data = scan.read_bytes()
    for length, words in [(0, "empty"), (4, "cut: 4 bytes"), (100, "cut in its header"), (len(data) - 9, "is cut")]:
        Path("cut.encdl").write_bytes(data[:length])
        failed(decrypt("cut.encdl"), "cut.encdl: ", words)
    Path("bad.encdl").write_bytes(data[:-50] + b"\0\0" + data[-48:])
    failed(decrypt("bad.encdl"), "changed after it was written", "--salvage")
    Path("new.encdl").write_bytes(data[:8] + b"\4" + data[9:])
    failed(decrypt("new.encdl"), "version 4", "update EncDL")
    for version in (1, 2):
        Path("old.encdl").write_bytes(data[:8] + bytes([version]) + data[9:])
        failed(decrypt("old.encdl"), f"made by EncDL 0.1 (container version {version})", "decrypt it with EncDL 0.1")


def test_wrong_weights(run: Run, folder: Path, coupled: Path) -> None:
    torch.manual_seed(1)
    other_id = weights.save(weights.ciphers.create("coupled", {"width": 4, "blocks": 1}), "other.pt")
    Path("text.pt").write_text("hello")
    assert run("encrypt", "scan.png", "--key", "k.key", "--weights", coupled)[0] == 0
    scan = Path("scan.encdl")
    made_with = container.read_header(scan).weights
    assert made_with not in SHIPPED_IDS
    options = ["--key", "k.key", "-o", "b.png"]
    failed(run("decrypt", scan, *options), made_with, "which do not come with EncDL", "give it with --weights")
    failed(run("decrypt", scan, *options, "--weights", "default"), made_with, "give it with --weights")
    failed(run("decrypt", scan, *options, "--weights", "other.pt"), made_with, other_id, "--weights")
    failed(run("decrypt", scan, *options, "--weights", "none.pt"), "none.pt: no such weights file")
    failed(run("decrypt", scan, *options, "--weights", "text.pt"), "text.pt: not a weights file")
    failed(run("decrypt", scan, *options, "--weights", "."), "no such weights file")
    failed(run("rekey", scan, "--key", "k.key", "--new-key", "other.key", "--weights", "other.pt"), made_with)


def test_a_cipher_that_does_not_come_with_encdl(run: Run, scan: Path) -> None:
    key = Key.load("k.key")
    with container.opened(scan, key) as reader:
        header, metadata = reader.header, reader.metadata
        assert metadata is not None
        bodies = [chunk.body for chunk in reader.chunks()]
    foreign = dataclasses.replace(header, cipher="text.pt", weights="0" * 16)
    with Path("f.encdl").open("wb") as stream:
        writer = container.ContainerWriter(stream, foreign, metadata, key.image_keys(header.nonce_bytes))
        for body in bodies:
            writer.chunk(body)
        writer.close()
    failed(run("decrypt", "f.encdl", "--key", "k.key"), "cipher 'text.pt'", "give it with --weights")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there(run: Run, agile: Path) -> None:
    result = run("encrypt", "scan.png", "--key", "k.key", "--weights", agile, "--device", "cuda")
    failed(result, "no CUDA device", "--device cpu")


def test_inspect(run: Run, scan: Path) -> None:
    code, out, err = run("inspect", scan)
    assert (code, err) == (0, "")
    for words in ("21x30 uint8", ", 1 slice\n", "version 3", "agile", Key.load("k.key").id, "complete", "not verified"):
        assert words in out
    shown = json.loads(run("inspect", scan, "--json")[1])
    assert shown["shape"] == [21, 30]
    assert shown["complete"] is True
    assert shown["file_bytes"] == scan.stat().st_size
    Path("cut.encdl").write_bytes(scan.read_bytes()[:-49])
    code, out, err = run("inspect", "cut.encdl")
    assert code == 2
    assert "NOT COMPLETE" in out
    assert "0 of 1 slices in full, 99.2 % of the pixels; sections in full: metadata, parity" in out
    assert "is cut" in err
    data = scan.read_bytes()
    Path("hit.encdl").write_bytes(data.replace(b'"nonce":"', b'"nonce":"0', 1)[:-1])
    failed(run("inspect", "hit.encdl"), "or try --salvage")
    place = data.index(b'"key_id":"') + 10
    other = b"1" if data[place : place + 1] == b"0" else b"0"  # still an id
    Path("hit.encdl").write_bytes(data[:place] + other + data[place + 1 :])
    failed(run("inspect", "hit.encdl"), "its beginning was hit: get an intact copy, or try --salvage")
    assert json.loads(run("inspect", "cut.encdl", "--json")[1])["complete"] is False
    code, out, err = run("inspect", scan, "--key", "k.key")
    assert (code, err) == (0, "")
    assert "verified with the key" in out
    assert "not verified" not in out
    assert "sealed        png" in out
    assert run("keygen", "strange.key")[0] == 0
    failed(run("inspect", scan, "--key", "strange.key"), "was encrypted with key")
    failed(run("inspect", "scan.png"), "not an EncDL file")
    failed(run("inspect", "none.encdl"), "no such file")


def test_names_without_the_usual_endings(run: Run, scan: Path, agile: Path) -> None:
    os.rename("scan.encdl", "blob")
    assert run("decrypt", "blob", "--key", "k.key", "--weights", agile)[0] == 0
    assert Path("blob.png").exists()


def test_a_key_that_others_can_read_is_warned_about(run: Run, scan: Path, agile: Path) -> None:
    Path("k.key").chmod(0o644)
    code, _, err = run("decrypt", scan, "--key", "k.key", "--weights", agile, "-o", "b.png")
    assert code == 0
    assert err == "encdl: warning: k.key: other users can read this file: chmod 600 it\n"


def test_no_output_ever_shows_a_secret(run: Run, scan: Path, agile: Path) -> None:
    secret = Path("k.key").read_text().split(":")[1].strip()
    results = [
        run("decrypt", scan, "--key", "other.key", "--weights", agile),
        run("decrypt", scan, "--key", "k.key", "--weights", agile, "-o", "b.png"),
        run("inspect", scan),
        run("encrypt", "k.key", "--key", "k.key"),
        run("decrypt", "k.key", "--key", "k.key"),
        run("encrypt", "scan.png", "--key", "k.key", "--weights", "k.key", "-o", "c.encdl"),
    ]
    assert secret[:12] not in repr(results)


def test_an_interruption_leaves_nothing_behind(
    folder: Path, agile: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from encdl.cli import main

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    before = sorted(folder.iterdir())
    monkeypatch.setattr(os, "fsync", interrupt)
    assert main(["encrypt", "scan.png", "--key", "k.key", "--weights", str(agile)]) == 130
    assert sorted(folder.iterdir()) == before
    assert capsys.readouterr().err == "encdl: interrupted\n"


@pytest.mark.parametrize("verb", [encrypt, decrypt, rekey, inspect])
def test_arguments_are_declared_once(verb: Any) -> None:
    verb.add_arguments(argparse.ArgumentParser())
