from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from encdl import readers
from encdl.ciphers import weights
from encdl.ciphers.names import POSTPROCESS
from encdl.files import codecs, container, images
from encdl.files.file_names import is_container
from encdl.files.folders import gather
from encdl.keys.key import Key, load_opener
from encdl.readers import KeyedStem, PlainStem, Reader
from encdl.readers.predictor import Predictor
from encdl.training.tasks.views import Ciphertext, Plaintext, View
from encdl.utils.errors import UsageError
from tests.commands.conftest import KEYED, Run, rows
from tests.commands.test_files import failed
from tests.reader_checkpoint import CLASSES, SIZE, resnet, save_reader, smooth, tiny_reader, unet
from tests.training.tasks.support import trainer
from tests.training.tasks.test_classify import Bars, stem, task


def logits_of_plaintext(backbone: type[Any], image: images.Array) -> torch.Tensor:
    """What the plaintext network says, with the weights of every tiny reader."""
    plain = tiny_reader(backbone, PlainStem)
    with torch.no_grad():
        logits: torch.Tensor = plain(torch.from_numpy(image)[None, None])[0]
    return logits


def test_a_classifier_fills_a_table(run: Run, files: list[Path]) -> None:
    code, out, err = run("predict", *files, *KEYED, "--reader", "classifier.ckpt")
    assert (code, err) == (0, "")
    table = rows(out)
    assert [row["file"] for row in table] == ["a.encdl", "b.encdl", "sub/c.encdl"]
    for seed, row in enumerate(table):
        expected = logits_of_plaintext(resnet, smooth(seed)).softmax(0)
        given = [float(row[f"probability of {name}"]) for name in CLASSES[resnet]]
        assert given == pytest.approx(expected.tolist(), abs=2e-5)
        assert row["predicted"] == CLASSES[resnet][int(np.argmax(given))]
    assert len({row["probability of ill"] for row in table}) == 3
    code, said, err = run("predict", *files, *KEYED, "--reader", "classifier.ckpt", "-o", "t.csv")
    assert (code, said, err) == (0, "t.csv: 3 files\n", "")
    assert Path("t.csv").read_text() == out


def test_a_segmenter_writes_masks(run: Run, files: list[Path]) -> None:
    options = [*KEYED, "--reader", "segmenter.ckpt", "-o", "out"]
    code, out, err = run("predict", *files, *options, "--overlay")
    assert (code, err) == (0, "")
    assert out == "out: masks of 3 files, with the levels 0 background, 1 tumour, 2 oedema\n"
    for seed, name in enumerate("abc"):
        mask = images.read(f"out/{name}.mask.png")
        logits = logits_of_plaintext(unet, smooth(seed))
        first, second = logits.topk(2, dim=0).values
        clear = (first - second > 1e-4).numpy()  # rounding decides the others
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(mask[clear], logits.argmax(0).numpy()[clear])
        assert len(np.unique(mask)) > 1
        drawn = images.read(f"out/{name}.overlay.png")
        assert drawn.shape[1] == 13 * SIZE[1]
        assert 13 * SIZE[0] < drawn.shape[0] < 13 * SIZE[0] + 60
    assert len(list(Path("out").iterdir())) == 6
    assert run("predict", *files, *options[:-1], "nifti", "--masks", "nifti")[0] == 0
    assert sorted(os.listdir("nifti")) == [f"{name}.mask.nii.gz" for name in "abc"]
    volume = np.asarray(nibabel.load("nifti/a.mask.nii.gz").dataobj)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(volume[..., 0].T, images.read("out/a.mask.png"), strict=True)


@pytest.mark.parametrize("process", POSTPROCESS)
def test_every_post_processing_and_every_kind_of_key(run: Run, folder: Path, process: str) -> None:
    images.write("p.png", smooth())
    assert run("encrypt", "p.png", *KEYED, "--postprocess", process, "--study", "S")[0] == 0
    assert run("grant", *KEYED, "--study", "S", "-o", "study.grant")[0] == 0
    assert run("grant", *KEYED, "--file", "p.encdl", "-o", "file.grant")[0] == 0
    for backbone in (resnet, unet):
        predictor = Predictor.load(save_reader("r.ckpt", tiny_reader(backbone)))
        expected = logits_of_plaintext(backbone, smooth())
        for name in ("k.key", "study.grant", "file.grant"):
            answer = predictor.read("p.encdl", load_opener(name))
            assert torch.allclose(answer.logits, expected, atol=1e-4)
    code, out, _ = run("predict", "p.encdl", "--key", "file.grant", "--reader", "r.ckpt", "-o", "masks")
    assert (code, out[:6]) == (0, "masks:")


def test_a_network_trained_on_plaintext_reads_ciphertext(run: Run, files: list[Path], coupled: Path) -> None:
    plain = tiny_reader(resnet, PlainStem)
    save_reader("plain.ckpt", plain, view="Plaintext")
    code, out, _ = run("predict", *files, *KEYED, "--reader", "plain.ckpt")
    assert code == 0
    assert out == run("predict", *files, *KEYED, "--reader", "classifier.ckpt")[1]
    assert run("encrypt", "a.png", *KEYED, "--weights", coupled, "-o", "other.encdl")[0] == 0
    theirs, mine = weights.load(coupled).id, weights.load("default").id
    for reader in ("plain.ckpt", "classifier.ckpt"):  # an exact cipher of other weights leaves the same difference
        options = [*KEYED, "--reader", reader]
        failed(run("predict", "other.encdl", *options), f"with weights {theirs}", mine, "--weights")
        code, other, _ = run("predict", "other.encdl", *options, "--weights", coupled)
        assert (code, rows(other)[0]["predicted"]) == (0, rows(out)[0]["predicted"])
        failed(run("predict", "a.encdl", *options, "--weights", coupled), f"with weights {mine}", theirs)


@pytest.mark.parametrize("view", [Ciphertext, Plaintext])
def test_what_training_wrote_is_read(run: Run, folder: Path, view: type[View]) -> None:
    """A checkpoint of a run, up to the table; and the other tests' checkpoints say the same things in it."""
    fitting = trainer(folder, 2)
    learnt = task(view(stem) if view is Ciphertext else view())  # type: ignore[call-arg]
    fitting.fit(learnt, Bars())
    fitting.save_checkpoint("last.ckpt")
    image = Bars().samples("test")[0]["image"]
    images.write("bar.png", np.asarray(image)[0])
    assert run("encrypt", "bar.png", *KEYED, "--postprocess", "diffusion")[0] == 0
    code, out, _ = run("predict", "bar.encdl", *KEYED, "--reader", "last.ckpt")
    assert code == 0
    [row] = rows(out)
    plain = Reader(PlainStem(1, learnt.reader.stem.width), learnt.reader.backbone).eval()
    plain.stem.load_state_dict(learnt.reader.stem.state_dict())
    with torch.no_grad():
        expected = plain(torch.as_tensor(image)[None]).softmax(1)[0]
    given = [float(row[f"probability of {name}"]) for name in ("level", "upright")]
    assert given == pytest.approx(expected.tolist(), abs=2e-5)
    untrained = torch.load(save_reader("tiny.ckpt", tiny_reader(resnet)), weights_only=True)
    written = torch.load("last.ckpt", weights_only=True)
    for key in (readers.READER_KEY, weights.CHECKPOINT_KEY):
        assert set(untrained[key]) == set(written[key])


def test_folders_are_searched_and_no_file_is_read_twice(run: Run, files: list[Path]) -> None:
    def found(*paths: Path) -> list[Path]:
        return [source.path for source in gather(paths, is_container, ".encdl file")]

    assert found(Path()) == files
    assert found(Path("sub"), *reversed(files)) == [files[2], files[1], files[0]]
    code, _, _ = run("predict", ".", "a.encdl", *KEYED, "--reader", "segmenter.ckpt", "-o", "out")
    assert code == 0
    made = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.*"))
    assert made == ["a.mask.png", "b.mask.png", "sub/c.mask.png"]
    Path("none").mkdir()
    with pytest.raises(UsageError, match=r"none: there is no \.encdl file"):
        found(Path("none"))


class Watch(TorchDispatchMode):
    """Notes whenever a tensor with the image's levels in it is formed."""

    def __init__(self, image: images.Array) -> None:
        super().__init__()
        self.picture, self.seen, self.formed = torch.from_numpy(image).double(), 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.shape[-2:] == self.picture.shape:
            for plane in result.double().flatten(0, -3):
                self.seen += 1
                for levels in (plane, plane * 255, (plane + 0.5) * 255, 255 - plane, plane % 256):
                    self.formed += bool((levels - self.picture).abs().lt(0.01).double().mean() > 0.5)
        return result


@pytest.mark.parametrize("view", ["Ciphertext", "Plaintext"])
def test_the_image_is_never_formed(run: Run, files: list[Path], view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By PyTorch, whose tensors can be watched; tests of the codec compare what compiled code gives with it."""
    monkeypatch.setattr("encdl.files.codecs.available", lambda: False)
    monkeypatch.setattr("encdl.files.codecs._codec", codecs._codec.__wrapped__)  # not one that was loaded before
    stem = PlainStem if view == "Plaintext" else KeyedStem
    predictor = Predictor.load(save_reader("r.ckpt", tiny_reader(unet, stem), view=view))
    key = Key.load("k.key")
    with Watch(smooth()) as watch:
        predictor.read("a.encdl", key)
    assert watch.seen > 40  # key bytes, ciphertext, mask and features
    assert watch.formed == 0
    with watch:  # what decryption does is noticed
        predictor.codec.decrypt_array(Path("a.encdl").read_bytes(), key)
    assert watch.formed > 0


def test_nothing_that_is_written_shows_the_image(
    run: Run, files: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one class everywhere the overlay is the ciphertext alone; decryption is not even called."""

    def never(*_: object) -> None:
        raise AssertionError("decrypted")

    for place in (
        "encdl.files.chunk_cipher.ChunkCipher.decrypt",
        "encdl.ciphers.compiled_ciphers.ArrayChunks.decrypt",
        "encdl.ciphers.base.Cipher.decrypt",
        "encdl.ciphers.agile.AgileCipher._decrypt",
    ):
        monkeypatch.setattr(place, never)
    reader = tiny_reader(unet)
    for parameter in reader.backbone.parameters():
        parameter.data.zero_()
    save_reader("r.ckpt", reader)
    monkeypatch.setenv("TMPDIR", str(folder))
    before = set(folder.rglob("*"))
    assert run("predict", "a.encdl", *KEYED, "--reader", "r.ckpt", "-o", "out", "--overlay")[0] == 0
    assert run("predict", "a.encdl", *KEYED, "--reader", "classifier.ckpt", "-o", "t.csv")[0] == 0
    made = set(folder.rglob("*")) - before
    assert {path.name for path in made} == {"out", "a.mask.png", "a.overlay.png", "t.csv"}
    assert not images.read("out/a.mask.png").any()
    drawn = images.read("out/a.overlay.png")
    with container.opened("a.encdl", Key.load("k.key")) as opened:
        body = np.frombuffer(next(opened.chunks()).body, np.uint8).reshape(SIZE)
    # Each pixel follows from its ciphertext byte alone, so the drawing tells no more than the file that is read.
    faint = (255 - 0.3 * body[..., None]).round().repeat(3, axis=2)
    np.testing.assert_array_equal(drawn[: 13 * SIZE[0]], faint.repeat(13, axis=0).repeat(13, axis=1))
