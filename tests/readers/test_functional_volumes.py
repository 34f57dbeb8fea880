"""Functional keys of volumes and series: W of each slice, what readers say of it, and what is refused."""

from __future__ import annotations

import csv
import sqlite3
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from encdl import api
from encdl.cli import main as encdl
from encdl.files import container
from encdl.files.container.sections import READING
from encdl.files.reading import Readable, ReadingLayer
from encdl.keys import Key
from encdl.keys.functional import pixel_noise
from encdl.keys.functional_map import centred
from encdl.readers import FunctionalStem, functional_files
from encdl.readers.answers import Answer, Classification, Segmentation
from encdl.serving.keyserver import make_app
from encdl.utils.errors import EncdlError, UsageError, WrongKeyError
from tests.files.scans.phantom import hounsfield, write_series
from tests.reader_checkpoint import resnet, save_reader, unet
from tests.readers.test_functional_files import CLASSES, SIDE, Backbone, functional_reader
from tests.serving.owner import BITS, head, log, reader_id, server, token
from tests.serving.support import running

SLICES, LARGE = 5, 2 * SIDE
LAYER = Readable(SIDE, window=(0.0, 2000.0))


def volume(dtype: str, slices: int = SLICES) -> np.ndarray:
    found = hounsfield((slices, LARGE, LARGE)) + np.random.default_rng(3).integers(0, 40, (slices, LARGE, LARGE))
    return (found // 8 + 130 if dtype == "uint8" else found).astype(dtype)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert encdl(["keygen", "k.key"]) == 0
    assert encdl(["keygen", "--signing", "server.key"]) == 0
    for seed, name in enumerate(("r", "second")):
        save_reader(f"{name}.ckpt", functional_reader(seed=seed), view="Functional", classes=CLASSES, size=[SIDE, SIDE])
    return tmp_path


@pytest.mark.parametrize("noise", [0.0, 30.0])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("backbone", [resnet, unet])
def test_each_slice_is_read_as_its_key_holder_reads_it(
    folder: Path, backbone: Backbone, dtype: str, noise: float
) -> None:
    """W c - W m = W x for every slice, with a draw of noise of its own, and what the network says of that."""
    reader = functional_reader(backbone)
    stem = reader.stem
    assert isinstance(stem, FunctionalStem)
    save_reader("r.ckpt", reader, view="Functional", classes=CLASSES, size=[SIDE, SIDE])
    Path("v.encdl").write_bytes(api.encrypt(volume(dtype), "k.key", readable=SIDE))
    key, function = api.grant_functional("v.encdl", "k.key", "r.ckpt", noise=noise), stem.map.frozen()
    with container.opened("v.encdl", Key.load("k.key")) as opened:
        layer = ReadingLayer.from_bytes(opened.section(READING) or b"")
        levels = layer.levels(opened.image_keys).astype(np.int64)
        if noise:
            draws = [pixel_noise(opened.image_keys, (1, 1, SIDE, SIDE), noise, number) for number in range(SLICES)]
            assert len({draw.tobytes() for draw in draws}) == SLICES
            levels += np.concatenate(draws)
    each = [function.apply(slice_[None] % 2**32) for slice_ in levels]
    assert np.array_equal(key.seen(function, layer.words), np.concatenate(each))
    answer = api.predict_functional("v.encdl", key, "r.ckpt")
    with torch.no_grad():
        known = [reader.backbone(stem.read(torch.from_numpy(centred(one)), layer.level_bits))[0] for one in each]
    if backbone is resnet:
        assert isinstance(answer, Classification)
        assert torch.equal(answer.logits, torch.stack(known))
        assert answer.numbers == tuple(range(SLICES))
    else:
        assert isinstance(answer, Segmentation)
        assert answer.mask.shape == (SLICES, LARGE, LARGE)
        # Each pixel of the layer is the mean of four of the image, between whose corners logits are interpolated.
        at = np.arange(LARGE)
        doubled = np.zeros((LARGE, SIDE), np.float32)
        np.add.at(doubled, (at, at // 2), 0.75)
        np.add.at(doubled, (at, (at // 2 + at % 2 * 2 - 1).clip(0, SIDE - 1)), 0.25)
        large = doubled @ torch.stack(known).numpy() @ doubled.T
        assert (answer.mask == large.argmax(1)).mean() > 0.999
        assert len(np.unique(answer.mask)) > 1


def test_a_slice_in_a_volume_is_read_as_in_a_file_of_its_own(folder: Path) -> None:
    whole = volume("int16")
    Path("v.encdl").write_bytes(api.encrypt(whole, "k.key", readable=LAYER))
    Path("one.encdl").write_bytes(api.encrypt(whole[3], "k.key", readable=LAYER))
    found, alone = (
        api.predict_functional(name, api.grant_functional(name, "k.key", "r.ckpt"), "r.ckpt")
        for name in ("v.encdl", "one.encdl")
    )
    assert isinstance(found, Classification)
    assert isinstance(alone, Answer)
    assert torch.equal(found.logits[3], alone.logits)


@pytest.mark.parametrize("backbone", [resnet, unet])
def test_a_host_reads_volumes_and_series_by_a_key_server(
    folder: Path, backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    """One request a file; of each slice as many bits may be known as of an image."""
    geometry = {"fit": SIDE}
    reader = functional_reader(backbone)
    save_reader("r.ckpt", reader, view="Functional", classes=CLASSES, size=[SIDE, SIDE], geometry=geometry)
    Path("in").mkdir()
    nibabel.save(nibabel.Nifti1Image(volume("int16").T, np.diag([2.0, 2.0, 3.0, 1.0])), "in/v.nii.gz")
    write_series(Path("in/ct"), shape=(4, LARGE, LARGE))
    options = ["--key", "k.key", "--study", "S", "--readable", str(SIDE), "--window", "0", "2000", "-o", "safe"]
    assert encdl(["encrypt", "in", *options]) == 0
    given = server(slices=SLICES)
    capsys.readouterr()
    with running(make_app(given)) as address:
        words = ["predict", "safe", "--reader", "r.ckpt", "--device", "cpu", "--keyserver", address]
        words += ["--token-file", "ward.token"] + ([] if backbone is resnet else ["-o", "masks"])
        assert encdl(words) == 0
    charged = sorted((line["slices"], line["charged"]) for line in log())
    assert charged == [(1, BITS)] * 4 + [(SLICES, BITS * SLICES)]
    if backbone is resnet:
        rows = [*csv.DictReader(capsys.readouterr().out.splitlines())]
        assert [row["slice"] for row in rows].count("all") == 2
        names = [Path(row["file"]).name for row in rows if row["slice"] != "all" and "ct" in Path(row["file"]).name]
        assert len(rows) == SLICES + 4 + 2
        with container.opened(next(Path("safe").rglob(names[0])), Key.load("k.key")) as opened:
            assert opened.header.grid.slices == 1
        mean = np.mean([float(row["probability of well"]) for row in rows[1 : SLICES + 1]])
        assert float(rows[0]["probability of well"]) == pytest.approx(mean, abs=1e-5)
        return
    told = capsys.readouterr().err
    assert told.count("where the scans lie is sealed, and no key was given: their masks have voxels of 1 mm") == 1
    [mask] = Path("masks").rglob("v*.mask.nii.gz")
    [file] = Path("safe").rglob("v.nii.gz.encdl")
    assert encdl(["decrypt", str(file), "--key", "k.key", "--mask", str(mask), "-o", "placed.nii.gz"]) == 0
    placed, at = nibabel.load("placed.nii.gz"), nibabel.load(mask)
    assert np.array_equal(placed.affine, nibabel.load("in/v.nii.gz").affine)
    assert np.array_equal(placed.dataobj, at.dataobj)
    shapes = sorted(nibabel.load(path).shape for path in Path("masks").rglob("*.mask.nii.gz"))
    assert shapes == [(LARGE, LARGE, 4), (LARGE, LARGE, SLICES)]


def test_a_budget_is_of_each_slice(folder: Path) -> None:
    Path("v.encdl").write_bytes(api.encrypt(volume("uint8"), "k.key", readable=SIDE, study="S"))
    one, two = reader_id("r"), reader_id("second")
    with pytest.raises(EncdlError, match="holds 5 slices, and keys are given for files of at most 4"):
        server(slices=4).answer(token("other"), one, head("v"))
    asked = server(slices=5, bits_per_image=2 * BITS - 1)
    assert asked.answer(token("other"), one, head("v")).given_bits == SLICES * BITS
    with pytest.raises(EncdlError, match=f"learns {SLICES * BITS:,} bits of the image, and {SLICES * (BITS - 1):,} of"):
        asked.answer(token("other"), two, head("v"))
    asked.answer(token("other"), one, head("v"))
    with sqlite3.connect("ledger") as base:
        assert base.execute("SELECT bits FROM spent").fetchall() == [(SLICES * BITS,)]


def test_what_cannot_be_read_is_refused(folder: Path) -> None:
    Path("v.encdl").write_bytes(api.encrypt(volume("uint8"), "k.key", readable=SIDE))
    Path("w.encdl").write_bytes(api.encrypt(volume("uint8", 2), "k.key", readable=SIDE))
    key, host = api.grant_functional("v.encdl", "k.key", "r.ckpt"), api.load_functional_reader("r.ckpt", device="cpu")
    with pytest.raises(WrongKeyError, match=r"^w\.encdl: .* for another file"):
        host.read("w.encdl", key)
    with pytest.raises(WrongKeyError, match="is for 5 slices, and the reading layer has 2"):
        key.seen(host.function, np.zeros((2, 1, SIDE, SIDE), np.uint32))
    save_reader("r.ckpt", functional_reader(), view="Functional", size=[SIDE, SIDE], geometry={"orientation": "SPL"})
    with pytest.raises(UsageError, match="learnt from scans turned to SPL"):
        api.predict_functional("v.encdl", key, "r.ckpt")
    Path("many.encdl").write_bytes(api.encrypt(np.zeros((17_000, 5, 5), np.uint8), "k.key"))
    with pytest.raises(UsageError, match="no file has a reading layer"):
        functional_files.grant_from_header(head("many"), Key.load("k.key"), host.function)
