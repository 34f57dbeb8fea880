"""Functional readers of volumes as a whole, and of images that are not of the reader's form."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch

from encdl import api
from encdl.cli import main as encdl
from encdl.files import container, images
from encdl.files.container import PublicReader
from encdl.files.container.sections import READING
from encdl.files.reading import Readable, ReadingLayer
from encdl.keys import Key
from encdl.keys.functional import FunctionalKey
from encdl.readers import FunctionalStem, MonaiNet, Reader
from encdl.serving.keyserver import make_app
from encdl.serving.service import KeylessService
from encdl.utils.errors import ContainerError, EncdlError
from tests.files.container.support import parts, resign
from tests.files.scans.phantom import hounsfield, write_series
from tests.reader_checkpoint import resnet, save_reader, smooth, unet
from tests.readers.test_functional_files import CLASSES, SIDE, functional_reader
from tests.serving.owner import head, log, reader_id, server, token
from tests.serving.support import running

SIZE, SHAPE = (8, 16, 12), (6, 13, 10)
BITS = 2 * (2 * 4 * 3) * 32
LEVELS = {"percentiles": [0.5, 99.5]}


def classifier(channels: int, classes: int) -> MonaiNet:
    widths = {"layers": [1] * 4, "block_inplanes": [4] * 4, "conv1_t_size": 3}
    return MonaiNet(channels, classes, "ResNet", {"block": "basic", **widths}, dimensions=3)


def segmenter(channels: int, classes: int) -> MonaiNet:
    return MonaiNet(channels, classes, "UNet", {"channels": [4, 8], "strides": [2]}, multiple=4, dimensions=3)


def save(name: str, backbone: Callable[[int, int], MonaiNet] = segmenter, seed: int = 0, **geometry: Any) -> None:
    torch.manual_seed(seed)
    stem = FunctionalStem(1, SIZE, outputs=2, kernel=4, stride=4, width=4, dimensions=3)
    reader = Reader(stem, backbone(4, 3))
    for _ in range(3):  # statistics of batches
        reader(torch.randint(0, 256, (2, 1, *SIZE), dtype=torch.uint8))
    said = {"view": "Functional", "classes": CLASSES, "size": list(SIZE), "levels": LEVELS}
    save_reader(f"{name}.ckpt", reader.eval(), **said, geometry=geometry)


def voxels(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """int16 (slices, rows, columns)."""
    return hounsfield(shape) + np.random.default_rng(1).integers(0, 300, shape, dtype=np.int16)


def write(kind: str) -> Path:
    if kind == "npy":
        np.save("v.npy", voxels())
        return Path("v.npy")
    if kind == "dicom":
        [path] = write_series(Path("one"), shape=(1, *SHAPE[1:]))
        dataset = pydicom.dcmread(path)
        dataset.NumberOfFrames, dataset.PixelData = SHAPE[0], voxels().tobytes()
        dataset.GridFrameOffsetVector = [2.0 * each for each in range(SHAPE[0])]
        dataset.save_as("v.dcm")
        return Path("v.dcm")
    # Lies on its side and is mirrored: voxels are counted along head, left and front.
    turned = nibabel.Nifti1Image(
        voxels().transpose(0, 2, 1), np.array([[0, -1.0, 0, 5], [0, 0, 1.5, 7], [2.0, 0, 0, 1], [0, 0, 0, 1]])
    )
    nibabel.save(turned, "v.nii.gz")
    return Path("v.nii.gz")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for words in (["k.key"], ["--signing", "server.key"], ["--signing", "owner.key"]):
        assert encdl(["keygen", *words]) == 0
    return tmp_path


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert encdl([*words, "--device", "cpu"] if words[0] == "predict" else words) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("kind", "orientation"), [("nifti", "SPR"), ("npy", None), ("npy", "SPR"), ("dicom", "SPL")])
@pytest.mark.parametrize("backbone", [classifier, segmenter])
def test_a_host_reads_a_volume_as_its_key_holder_does(
    folder: Path,
    backbone: Callable[[int, int], MonaiNet],
    kind: str,
    orientation: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save("r", backbone, orientation=orientation)
    words = ["encrypt", str(write(kind)), "--key", "k.key", "--readable", "r.ckpt", "--sign", "owner.key"]
    assert encdl([*words, "-o", "v.encdl"]) == 0
    grant = ["grant", "--reader", "r.ckpt", "--key", "k.key", "--sign", "server.key", "v.encdl", "-o", "v.fkey"]
    assert "learns 48 numbers of the volume" in told(grant, capsys)
    assert "48 numbers of the volume, 1,536 bits" in told(["keyinfo", "v.fkey", "--reader", "r.ckpt"], capsys)
    # W c - W m = W x, bit for bit
    host, key = api.load_functional_reader("r.ckpt", device="cpu"), FunctionalKey.load("v.fkey")
    with container.opened("v.encdl", Key.load("k.key")) as opened:
        layer = ReadingLayer.from_bytes(opened.section(READING) or b"")
        levels = layer.levels(opened.image_keys)
        assert opened.header.reading == {"orientation": orientation or "", "size": [*SIZE], "spacing": []}
    assert layer.words.shape == (1, 1, *SIZE)
    assert int(levels.max()) == 255
    assert np.array_equal(key.seen(host.function, layer.words), host.function.apply(levels))
    output = [] if backbone is classifier else ["-o", "full"]
    known = told(["predict", "v.encdl", "--key", "k.key", "--reader", "r.ckpt", *output], capsys)
    Path("k.key").rename("away.key")
    keyless = ["predict", "v.encdl", "--functional-key", "v.fkey", "--reader", "r.ckpt", "--server-key", "server.pub"]
    found = told([*keyless, "--owner-key", "owner.pub", *(output and ["-o", "masks"])], capsys)
    if backbone is classifier:
        assert found == known
        [row] = csv.DictReader(found.splitlines())
        assert sum(float(row[f"probability of {name}"]) for name in CLASSES) == pytest.approx(1, abs=1e-5)
        return
    full, mask = (nibabel.load(f"{name}/v.mask.nii.gz") for name in ("full", "masks"))
    if orientation is None:  # then the mask has the voxels of the scan
        assert np.array_equal(full.dataobj, mask.dataobj)
        return
    assert mask.shape == SIZE[::-1]
    assert "".join(nibabel.aff2axcodes(mask.affine)) == orientation[::-1]
    words = ["decrypt", "v.encdl", "--key", "away.key", "--mask", "masks/v.mask.nii.gz", "-o", "placed.nii.gz"]
    assert "on the grid of v.encdl" in told(words, capsys)
    placed = nibabel.load("placed.nii.gz")
    assert np.array_equal(placed.dataobj, full.dataobj)
    assert np.array_equal(placed.affine, full.affine)
    assert len(np.unique(placed.dataobj)) > 1


def test_a_layer_is_resampled_as_the_reader_wants_it(folder: Path) -> None:
    """Its mask goes back by the nearest voxel, the key's holder interpolates logits; a row too many is left out."""
    save("r", orientation="SPR", spacing=[1.5, 1.125, 1.0])
    api.encrypt_file(write("nifti"), "k.key", "v.encdl", readable=api.readable_for("r.ckpt"))
    api.grant_functional("v.encdl", "k.key", "r.ckpt").save("v.fkey")
    with pytest.warns(UserWarning, match="puts its mask there with"):
        found = api.predict_functional("v.encdl", "v.fkey", "r.ckpt")
    assert found.mask.shape == SIZE  # type: ignore[union-attr]
    assert found.volume.known  # type: ignore[union-attr]
    for given in (["--functional-key", "v.fkey", "-o", "masks"], ["--key", "k.key", "-o", "full"]):
        assert encdl(["predict", "v.encdl", "--reader", "r.ckpt", *given]) == 0
    mask = nibabel.load("masks/v.mask.nii.gz")
    assert mask.header.get_zooms() == (1.0, 1.125, 1.5)
    api.place_mask("masks/v.mask.nii.gz", "v.encdl", "k.key", "placed.nii.gz")
    full, placed = (np.asarray(nibabel.load(name).dataobj) for name in ("full/v.mask.nii.gz", "placed.nii.gz"))
    assert (full == placed).mean() > 0.8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "v.encdl", "--functional-key", "v.fkey", "--reader", "other.ckpt", "-o", "m"], "is for reader"),
        (["predict", "w.encdl", "--functional-key", "v.fkey", "--reader", "r.ckpt", "-o", "m"], "is for another file"),
        (["predict", "lie.encdl", "--functional-key", "v.fkey", "--reader", "r.ckpt", "-o", "m"], "volume of 8x12x16"),
        (["predict", "cut.encdl", "--functional-key", "v.fkey", "--reader", "r.ckpt", "-o", "m"], "layer is 1x8x12x16"),
        (
            ["predict", "safe", "--functional-key", ".", "--reader", "r.ckpt", "-o", "m"],
            "is one of 2 files of a series",
        ),
        (["grant", "--reader", "r.ckpt", "--key", "k.key", "lie.encdl", "-o", "x"], "its header was changed"),
        (["grant", "--reader", "flat.ckpt", "--key", "k.key", "v.encdl", "-o", "x"], "is a volume of 8x16x12, and the"),
        (
            ["grant", "--reader", "r.ckpt", "--key", "k.key", "flat.encdl", "-o", "x"],
            "has no reading layer of a volume",
        ),
        (
            ["grant", "--reader", "wide.ckpt", "--key", "k.key", "v.encdl", "-o", "x"],
            "lies as the file, no mm, and the",
        ),
        (["decrypt", "v.encdl", "--key", "k.key", "--mask", "big.npy", "-o", "x.nii.gz"], "layer is 8x16x12: give the"),
        (
            ["decrypt", "flat.encdl", "--key", "k.key", "--mask", "big.npy", "-o", "x.nii.gz"],
            "layer is none of a volume",
        ),
        (["decrypt", "v.encdl", "--key", "k.key", "--mask", "big.npy"], "--output"),
        (["decrypt", "v.encdl", "--key", "k.key", "--mask", "scan.npy", "-o", "x.nii.gz"], "is no mask: its values"),
        (["encrypt", "one", "--key", "k.key", "--readable", "r.ckpt", "-o", "out"], "put the slices into one file"),
        (["encrypt", "big.npy", "--key", "k.key", "--readable", "r.ckpt"], "has 9x5x5 voxels"),
        (["encrypt", "big.npy", "--key", "k.key", "--readable", "8x16x12"], "checkpoint of the reader"),
    ],
)
def test_refusals_take_one_line(folder: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    save("r")
    save("other", seed=1)
    save("wide", spacing=[0, 1.0, 1.0])
    save_reader("flat.ckpt", functional_reader(), view="Functional", classes=CLASSES, size=[SIDE, SIDE])
    form = api.readable_for("r.ckpt")
    for name in ("v", "w"):
        Path(f"{name}.encdl").write_bytes(api.encrypt(voxels(), "k.key", readable=form))
    Path("flat.encdl").write_bytes(api.encrypt(voxels(), "k.key", readable=SIDE))
    whole = parts(Path("v.encdl").read_bytes())  # parity would undo what follows
    bare = replace(whole, parity=bytes(len(whole.parity)), table=whole.table.replace(b"ing-parity", b"ing-purity"))
    Path("lie.encdl").write_bytes(replace(bare, head=bare.head.replace(b"[8,16,12]", b"[8,12,16]")).joined())
    sizes = [np.array([1, *each], "<u4").tobytes() for each in (SIZE, (8, 12, 16))]
    Path("cut.encdl").write_bytes(replace(bare, behind=bare.behind.replace(*sizes)).joined())
    write_series(Path("ct"), shape=(2, 9, 9))
    write_series(Path("one"), shape=(1, 9, 9))
    assert encdl(["encrypt", "ct", "--key", "k.key", "--readable", "9", "-o", "safe"]) == 0
    np.save("big.npy", voxels((9, 5, 5)))
    np.save("scan.npy", voxels() + 300)
    api.grant_functional("v.encdl", "k.key", "r.ckpt").save("v.fkey")
    capsys.readouterr()
    assert encdl(words) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len([line for line in error.splitlines() if "error" in line]) == 1


def test_a_key_server_and_a_host_that_serves(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A volume that is read as a whole is one image of the policy, whatever its slices."""
    save("r")
    save("second", seed=1)
    np.save("v.npy", voxels())
    words = ["encrypt", "v.npy", "--key", "k.key", "--study", "S", "--readable", "r.ckpt"]
    assert encdl(words) == 0
    given = server(bits_per_image=BITS)
    with running(make_app(given)) as address:
        words = ["predict", "v.encdl", "--reader", "r.ckpt", "--keyserver", address, "--token-file", "ward.token"]
        told([*words, "-o", "masks"], capsys)
    assert [(line["charged"], line["slices"]) for line in log()] == [(BITS, SHAPE[0])]
    with pytest.raises(EncdlError, match=f"learns {BITS:,} bits of the image, and 0 of"):
        given.answer(token("other"), reader_id("second"), head("v"))
    host = api.load_functional_reader("r.ckpt", device="cpu")
    served = KeylessService(host, lambda _, header, reader: given.answer(token("ward"), reader, header))
    [answer] = served.answer([{"container": base64.b64encode(Path("v.encdl").read_bytes()).decode()}])
    assert base64.b64decode(answer["nifti"]) == Path("masks/v.mask.nii.gz").read_bytes()


def test_rekeying_keeps_the_layer_of_a_volume(folder: Path) -> None:
    save("r")
    made = api.encrypt(voxels(), "k.key", readable=api.readable_for("r.ckpt"), nonce="synthetic")
    Path("v.encdl").write_bytes(made)
    assert encdl(["keygen", "new.key"]) == 0
    known = api.predict_functional("v.encdl", api.grant_functional("v.encdl", "k.key", "r.ckpt"), "r.ckpt")
    assert encdl(["rekey", "v.encdl", "--key", "k.key", "--new-key", "new.key"]) == 0
    found = api.predict_functional("v.encdl", api.grant_functional("v.encdl", "new.key", "r.ckpt"), "r.ckpt")
    assert np.array_equal(found.mask, known.mask)  # type: ignore[union-attr]
    windowed = api.encrypt(voxels(), "k.key", readable=api.readable_for("r.ckpt", (0, 99)), nonce="synthetic")
    assert len({PublicReader(io.BytesIO(each)).header.nonce for each in (made, windowed)}) == 2


@pytest.mark.parametrize(
    "value",
    [
        {}, [], None, {"size": [8, 8, 8]}, {"size": [8, 8], "orientation": "", "spacing": []},
        {"size": [8, 8, 0], "orientation": "", "spacing": []}, {"size": [8, 8, 8], "orientation": "SPX", "spacing": []},
        {"size": [8, 8, 8], "orientation": "", "spacing": [1.0, -1.0, 1.0]},
    ],
)  # fmt: skip
def test_a_header_that_says_nonsense_of_its_layer_is_refused(folder: Path, value: Any) -> None:
    made = resign(api.encrypt(voxels(), "k.key"), lambda values: values | {"reading": value}, key=Key.load("k.key"))
    with pytest.raises(ContainerError, match="field 'reading' is not valid"):
        api.decrypt(made, "k.key")


@pytest.mark.parametrize("shape", [(48, 36), (20, 26)])
@pytest.mark.parametrize("colour", [(), (3,)])
def test_an_image_of_another_form_is_fitted_as_in_training(
    folder: Path, shape: tuple[int, int], colour: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    stem = FunctionalStem(colour[0] if colour else 1, (SIDE, SIDE), outputs=2, kernel=8, stride=4, width=4)
    reader = Reader(stem, resnet(4, 3)).eval()
    save_reader("r.ckpt", reader, view="Functional", classes=CLASSES, size=[SIDE, SIDE], geometry={"fit": SIDE})
    image = smooth(shape=shape)
    images.write("a.png", np.stack([image, image // 2, 255 - image], -1) if colour else image)
    answers = []
    for name, readable in (("form", "r.ckpt"), ("number", str(SIDE))):
        assert encdl(["encrypt", "a.png", "--key", "k.key", "--readable", readable, "-o", f"{name}.encdl"]) == 0
        if name == "number" and max(shape) < SIDE:  # such a layer is as small as the image
            assert encdl(["grant", "--reader", "r.ckpt", "--key", "k.key", "number.encdl", "-o", "x"]) == 2
            assert "encrypt it with --readable READER" in capsys.readouterr().err
            return
        key = api.grant_functional(f"{name}.encdl", "k.key", "r.ckpt")
        answers.append(api.predict_functional(f"{name}.encdl", key, "r.ckpt"))
        known = api.predict(f"{name}.encdl", "k.key", "r.ckpt")
        if name == "form":
            assert torch.equal(answers[0].logits, known.logits)  # type: ignore[union-attr]
    assert torch.allclose(answers[1].logits, known.logits, atol=0.02 * float(known.logits.std()) + 2e-3)  # type: ignore[union-attr]


def test_an_image_is_fitted_into_a_reader_that_is_not_square(folder: Path) -> None:
    stem = FunctionalStem(1, (24, 20), outputs=2, kernel=8, stride=4, width=4)
    save_reader("r.ckpt", Reader(stem, resnet(4, 3)).eval(), view="Functional", classes=CLASSES, size=[24, 20])
    images.write("a.png", smooth(shape=(70, 60)))
    assert encdl(["encrypt", "a.png", "--key", "k.key", "--readable", "r.ckpt"]) == 0
    layer = ReadingLayer.mended(PublicReader(io.BytesIO(Path("a.encdl").read_bytes())))
    assert layer is not None
    assert layer.words.shape == (1, 1, 23, 20)
    found: Any = api.predict_functional("a.encdl", api.grant_functional("a.encdl", "k.key", "r.ckpt"), "r.ckpt")
    assert found.logits.shape == (3,)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("backbone", [resnet, unet])
def test_slices_of_another_form_are_fitted_and_masks_lie_on_them(folder: Path, backbone: Any, exact: bool) -> None:
    reader, window = functional_reader(backbone), (0.0, 700.0)
    known = {"view": "Functional", "classes": CLASSES, "size": [SIDE, SIDE], "geometry": {"fit": SIDE}}
    save_reader("r.ckpt", reader, **known, levels={"window": list(window)})  # type: ignore[arg-type]
    nibabel.save(nibabel.Nifti1Image(hounsfield((3, 48, 36)).T, np.eye(4)), "v.nii.gz")
    readable = api.readable_for("r.ckpt") if exact else Readable(SIDE, window=window)
    api.encrypt_file("v.nii.gz", "k.key", "v.encdl", readable=readable)
    found: Any = api.predict_functional("v.encdl", api.grant_functional("v.encdl", "k.key", "r.ckpt"), "r.ckpt")
    full: Any = api.load_reader("r.ckpt", device="cpu").answer(Path("v.encdl"), Key.load("k.key"))
    if backbone is resnet:
        near = 0.0 if exact else 0.05 * float(full.logits.std()) + 2e-3
        assert torch.allclose(found.logits, full.logits, rtol=0, atol=near)
        return
    assert found.mask.shape == full.mask.shape == (3, 48, 36)
    # With the key slices are sampled between voxels, in layers they are means of areas.
    assert (found.mask == full.mask).mean() > 0.85
