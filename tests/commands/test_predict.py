from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from encdl import container, images, readers, weights
from encdl.cli import main
from encdl.commands.encrypt import POSTPROCESS
from encdl.commands.predict import find
from encdl.errors import UsageError
from encdl.keys.key import Key, load_opener
from encdl.prediction import Predictor
from encdl.readers import GatedStem, KeyedStem, KeylessStem, PlainStem, Reader, ResNet18, UNet
from encdl.tasks.views import Ciphertext, Plaintext, View
from tests.commands.conftest import Run
from tests.commands.test_files import failed, noise
from tests.reader_checkpoint import CLASSES, SIZE, save_reader, tiny_reader
from tests.tasks.support import trainer
from tests.tasks.test_classify import Bars, stem, task

KEYED = ["--key", "k.key"]


def smooth(seed: int = 0, shape: tuple[int, ...] = SIZE) -> images.Array:
    """A picture with something in it."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (120 + 90 * np.sin(x / (4 + seed)) * np.cos(y / 5 + seed)).round().astype(np.uint8)


def logits_of_plaintext(backbone: type[Any], picture: images.Array) -> torch.Tensor:
    """What the plaintext network says, with the weights of every tiny reader."""
    plain = tiny_reader(backbone, PlainStem)
    with torch.no_grad():
        logits: torch.Tensor = plain(torch.from_numpy(picture)[None, None])[0]
    return logits


@pytest.fixture
def files(run: Run) -> list[Path]:
    """a.encdl, b.encdl and sub/c.encdl under k.key; classifier.ckpt and segmenter.ckpt."""
    Path("sub").mkdir()
    found = []
    for seed, name in enumerate(["a", "b", "sub/c"]):
        images.write(f"{name}.png", smooth(seed))
        assert run("encrypt", f"{name}.png", *KEYED, "--study", f"S{seed}")[0] == 0
        found.append(Path(f"{name}.encdl"))
    save_reader("classifier.ckpt", tiny_reader(ResNet18))
    save_reader("segmenter.ckpt", tiny_reader(UNet))
    return found


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_classifier_fills_a_table(run: Run, files: list[Path]) -> None:
    code, out, err = run("predict", *files, *KEYED, "--reader", "classifier.ckpt")
    assert (code, err) == (0, "")
    table = rows(out)
    assert [row["file"] for row in table] == ["a.encdl", "b.encdl", "sub/c.encdl"]
    for seed, row in enumerate(table):
        expected = logits_of_plaintext(ResNet18, smooth(seed)).softmax(0)
        given = [float(row[f"probability of {name}"]) for name in CLASSES[ResNet18]]
        assert given == pytest.approx(expected.tolist(), abs=2e-5)
        assert row["predicted"] == CLASSES[ResNet18][int(np.argmax(given))]
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
        logits = logits_of_plaintext(UNet, smooth(seed))
        first, second = logits.topk(2, dim=0).values
        clear = (first - second > 1e-4).numpy()  # rounding decides the others
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(mask[clear], logits.argmax(0).numpy()[clear])
        assert len(np.unique(mask)) > 1
        drawn = images.read(f"out/{name}.overlay.png")
        assert drawn.shape == (*SIZE, 3)
    assert len(list(Path("out").iterdir())) == 6
    assert run("predict", *files, *options[:-1], "nifti", "--format", "nii")[0] == 0
    assert sorted(os.listdir("nifti")) == [f"{name}.mask.nii.gz" for name in "abc"]
    volume = np.asarray(nibabel.load("nifti/a.mask.nii.gz").dataobj)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(volume[..., 0].T, images.read("out/a.mask.png"), strict=True)


@pytest.mark.parametrize("process", POSTPROCESS)
def test_every_post_processing_and_every_kind_of_key(run: Run, folder: Path, process: str) -> None:
    images.write("p.png", smooth())
    assert run("encrypt", "p.png", *KEYED, "--postprocess", process, "--study", "S")[0] == 0
    assert run("grant", *KEYED, "--study", "S", "-o", "study.grant")[0] == 0
    assert run("grant", *KEYED, "--file", "p.encdl", "-o", "file.grant")[0] == 0
    for backbone in (ResNet18, UNet):
        predictor = Predictor.load(save_reader("r.ckpt", tiny_reader(backbone)))
        expected = logits_of_plaintext(backbone, smooth())
        for name in ("k.key", "study.grant", "file.grant"):
            answer = predictor.read("p.encdl", load_opener(name))
            assert torch.allclose(answer.logits, expected, atol=1e-4)
    code, out, _ = run("predict", "p.encdl", "--key", "file.grant", "--reader", "r.ckpt", "-o", "masks")
    assert (code, out[:6]) == (0, "masks:")


def test_a_network_trained_on_plaintext_reads_ciphertext(run: Run, files: list[Path], agile: Path) -> None:
    plain = tiny_reader(ResNet18, PlainStem)
    save_reader("plain.ckpt", plain, view="Plaintext")
    code, out, _ = run("predict", *files, *KEYED, "--reader", "plain.ckpt")
    assert code == 0
    assert out == run("predict", *files, *KEYED, "--reader", "classifier.ckpt")[1]
    assert run("encrypt", "a.png", *KEYED, "--weights", agile, "-o", "other.encdl")[0] == 0
    theirs, mine = weights.load(agile).id, weights.load("default").id
    for reader in (
        "plain.ckpt",
        "classifier.ckpt",
    ):  # an exact cipher of other weights leaves the same difference
        options = [*KEYED, "--reader", reader]
        failed(run("predict", "other.encdl", *options), f"with weights {theirs}", mine, "--weights")
        code, other, _ = run("predict", "other.encdl", *options, "--weights", agile)
        assert (code, rows(other)[0]["predicted"]) == (0, rows(out)[0]["predicted"])
        failed(run("predict", "a.encdl", *options, "--weights", agile), f"with weights {mine}", theirs)


@pytest.mark.parametrize("view", [Ciphertext, Plaintext])
def test_what_training_wrote_is_read(run: Run, folder: Path, view: type[View]) -> None:
    """A checkpoint of a run, up to the table; and the other tests' checkpoints say the same things in it."""
    fitting = trainer(folder, 2)
    learnt = task(view(stem) if view is Ciphertext else view())  # type: ignore[call-arg]
    fitting.fit(learnt, Bars())
    fitting.save_checkpoint("last.ckpt")
    picture = Bars().samples("test")[0]["image"]
    images.write("bar.png", np.asarray(picture)[0])
    assert run("encrypt", "bar.png", *KEYED, "--postprocess", "diffusion")[0] == 0
    code, out, _ = run("predict", "bar.encdl", *KEYED, "--reader", "last.ckpt")
    assert code == 0
    [row] = rows(out)
    plain = Reader(PlainStem(1, learnt.reader.stem.width), learnt.reader.backbone).eval()
    plain.stem.load_state_dict(learnt.reader.stem.state_dict())
    with torch.no_grad():
        expected = plain(torch.as_tensor(picture)[None]).softmax(1)[0]
    given = [float(row[f"probability of {name}"]) for name in ("level", "upright")]
    assert given == pytest.approx(expected.tolist(), abs=2e-5)
    untrained = torch.load(save_reader("tiny.ckpt", tiny_reader(ResNet18)), weights_only=True)
    written = torch.load("last.ckpt", weights_only=True)
    for key in (readers.READER_KEY, weights.CHECKPOINT_KEY):
        assert set(untrained[key]) == set(written[key])


def test_folders_are_searched_and_no_file_is_read_twice(run: Run, files: list[Path]) -> None:
    assert [source.path for source in find([Path()])] == files
    assert [str(source.name) for source in find([Path()])] == ["a", "b", "sub/c"]
    assert [source.path for source in find([Path("sub"), *reversed(files)])] == [files[2], files[1], files[0]]
    code, _, _ = run("predict", ".", "a.encdl", *KEYED, "--reader", "segmenter.ckpt", "-o", "out")
    assert code == 0
    made = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.*"))
    assert made == ["a.mask.png", "b.mask.png", "sub/c.mask.png"]
    Path("none").mkdir()
    with pytest.raises(UsageError, match=r"none: there is no \.encdl file"):
        find([Path("none")])


class Watch(TorchDispatchMode):
    """Notes whenever a tensor with the picture's levels in it is formed."""

    def __init__(self, picture: images.Array) -> None:
        super().__init__()
        self.picture, self.seen, self.formed = torch.from_numpy(picture).double(), 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.shape[-2:] == self.picture.shape:
            for plane in result.double().flatten(0, -3):
                self.seen += 1
                for levels in (plane, plane * 255, (plane + 0.5) * 255, 255 - plane, plane % 256):
                    self.formed += bool((levels - self.picture).abs().lt(0.01).double().mean() > 0.5)
        return result


@pytest.mark.parametrize("view", ["Ciphertext", "Plaintext"])
def test_the_picture_is_never_formed(run: Run, files: list[Path], view: str) -> None:
    stem = PlainStem if view == "Plaintext" else KeyedStem
    predictor = Predictor.load(save_reader("r.ckpt", tiny_reader(UNet, stem), view=view))
    key = Key.load("k.key")
    with Watch(smooth()) as watch:
        predictor.read("a.encdl", key)
    assert watch.seen > 50
    assert watch.formed == 0
    with watch:  # what decryption does is noticed
        predictor.codec.decrypt_array(Path("a.encdl").read_bytes(), key)
    assert watch.formed > 0


def test_nothing_that_is_written_shows_the_picture(
    run: Run, files: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one class everywhere the overlay is the ciphertext alone; decryption is not even called."""

    def never(*_: object) -> None:
        raise AssertionError("decrypted")

    for place in (
        "chunk_cipher.ChunkCipher.decrypt",
        "ciphers.base.Cipher.decrypt",
        "ciphers.agile.AgileCipher._decrypt",
    ):
        monkeypatch.setattr(f"encdl.{place}", never)
    reader = tiny_reader(UNet)
    for parameter in reader.backbone.parameters():
        parameter.data.zero_()
    save_reader("r.ckpt", reader)
    monkeypatch.setenv("TMPDIR", str(folder))
    before = set(folder.rglob("*"))
    assert run("predict", "a.encdl", *KEYED, "--reader", "r.ckpt", "-o", "out", "--overlay")[0] == 0
    assert run("predict", "a.encdl", *KEYED, "--reader", "classifier.ckpt", "-o", "t.csv")[0] == 0
    made = set(folder.rglob("*")) - before
    assert {path.name for path in made} == {"out", "a.mask.png", "a.overlay.png", "t.csv"}
    picture = smooth().astype(float)
    assert not images.read("out/a.mask.png").any()
    drawn = images.read("out/a.overlay.png").mean(2)
    assert abs(np.corrcoef(drawn.ravel(), picture.ravel())[0, 1]) < 0.1
    with container.opened("a.encdl", Key.load("k.key")) as opened:
        body = np.frombuffer(next(opened.chunks()).body, np.uint8)
    assert np.corrcoef(drawn.ravel(), body)[0, 1] < -0.99


def test_a_bad_file_does_not_stop_the_others(
    files: list[Path], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = files[0].read_bytes()
    Path("bad.encdl").write_bytes(data[:-50] + b"\0\0" + data[-48:])
    Path("cut.encdl").write_bytes(data[:-50])
    Path("text.encdl").write_text("hello")
    bad = ["bad.encdl", "gone.encdl", "text.encdl", "cut.encdl", "a.png"]
    capfd.readouterr()
    assert main(["predict", *bad, "b.encdl", *KEYED, "--reader", "classifier.ckpt", "-o", "t.csv"]) == 1
    out, err = capfd.readouterr()
    assert out == "t.csv: 1 file\n"
    lines = err.splitlines()
    words = ["changed after", "no such file", "not an EncDL file", "is cut", "not an EncDL file"]
    for name, word, line in zip(bad, words, lines, strict=False):
        assert line.startswith(f"encdl: error: {name}: ")
        assert word in line
    assert lines[5:] == ["encdl: 5 of 6 files could not be read"]
    assert [row["file"] for row in rows(Path("t.csv").read_text())] == ["b.encdl"]
    assert main(["predict", *bad, *KEYED, "--reader", "segmenter.ckpt", "-o", "out"]) == 2
    assert not Path("out").exists()
    assert main(["predict", *bad, *KEYED, "--reader", "classifier.ckpt", "-o", "u.csv"]) == 2
    assert not Path("u.csv").exists()


def test_keys_that_open_something_else(run: Run, files: list[Path]) -> None:
    assert run("grant", *KEYED, "--study", "S1", "-o", "study.grant")[0] == 0
    assert run("grant", *KEYED, "--file", "b.encdl", "-o", "file.grant")[0] == 0
    for reader in (["classifier.ckpt"], ["segmenter.ckpt", "-o", "out"]):
        options = ["--reader", *reader]
        mine, other = Key.load("k.key").id, Key.load("other.key").id
        result = run("predict", "a.encdl", "--key", "other.key", *options)
        failed(result, f"a.encdl: was encrypted with key {mine}, yours is {other}")
        failed(run("predict", "a.encdl", "--key", "study.grant", *options), "a.encdl: ", "study 'S1'")
        failed(run("predict", "a.encdl", "--key", "file.grant", *options), "a.encdl: ")
        failed(run("predict", "a.encdl", "--key", "gone.key", *options), "no key file gone.key")
        failed(run("predict", "a.encdl", "--key", "a.png", *options), "a.png is not a key file")
        failed(run("predict", "k.key", *KEYED, *options), "k.key: is not an EncDL file")
    assert not Path("out").exists()


def test_pictures_that_the_reader_cannot_read(run: Run, files: list[Path]) -> None:
    cases = {
        "deep.png": (noise(SIZE, "uint16"), "holds uint16 levels"),
        "signed.npy": (noise(SIZE, "int16"), "holds int16 levels"),
        "colour.png": (noise((*SIZE, 3)), "has 3 channels, the reader takes 1 channel"),
        "stack.npy": (
            noise((*SIZE, 9)),
            "holds 21 slices, and readers take one picture a file: encrypt each slice",
        ),
        "small.png": (noise((1, 1)), "is 1x1 pixels, the reader was trained on 21x30"),
    }
    for name, (array, words) in cases.items():
        images.write(name, array)
        assert run("encrypt", name, *KEYED)[0] == 0
        path = Path(name).with_suffix(".encdl")
        failed(run("predict", path, *KEYED, "--reader", "classifier.ckpt"), f"{path}: ", words)
    options = ["small.encdl", *KEYED]
    assert run("predict", *options, "--reader", "classifier.ckpt", "--any-size")[0] == 0
    assert run("predict", *options, "--reader", "segmenter.ckpt", "-o", "out")[0] == 0
    assert images.read("out/small.mask.png").shape == (1, 1)
    dense = Reader(KeyedStem(1, 4), readers.DenseNet(4, 3, width=8, growth=4, blocks=[1, 1, 1])).eval()
    save_reader("dense.ckpt", dense, classes=["a", "b", "c"])
    failed(run("predict", *options, "--reader", "dense.ckpt", "--any-size"), "1x1 pixels are too few")


def test_colour(run: Run, folder: Path) -> None:
    images.write("c.png", np.stack([smooth(seed) for seed in range(3)], axis=2))
    assert run("encrypt", "c.png", *KEYED, "--postprocess", "both")[0] == 0
    plain = tiny_reader(UNet, PlainStem, channels=3)
    predictor = Predictor.load(save_reader("r.ckpt", plain, view="Plaintext"))
    answer = predictor.read("c.encdl", Key.load("k.key"))
    picture = torch.from_numpy(images.read("c.png").copy()).movedim(2, 0)[None]
    assert torch.allclose(answer.logits, plain(picture)[0], atol=1e-4)
    assert run("predict", "c.encdl", *KEYED, "--reader", "r.ckpt", "-o", "out", "--overlay")[0] == 0
    assert images.read("out/c.overlay.png").shape == (*SIZE, 3)


def test_readers_that_cannot_serve(run: Run, files: list[Path], agile: Path) -> None:
    def predict(reader: object, *words: object) -> tuple[int, str, str]:
        return run("predict", "a.encdl", *KEYED, "--reader", reader, *words)

    keyless = save_reader("keyless.ckpt", tiny_reader(ResNet18, KeylessStem), view="Keyless")
    failed(predict(keyless), "keyless.ckpt: was trained without the key (view Keyless, KeylessStem)")
    odd = save_reader("odd.ckpt", tiny_reader(ResNet18, PlainStem), view="Keyless")
    failed(predict(odd), "trained without the key (view Keyless, PlainStem)")
    gated = save_reader("gated.ckpt", tiny_reader(ResNet18, GatedStem))
    assert predict(gated)[0] == 0
    failed(predict(gated, "--weights", agile), "reads no others (GatedStem)", "leave out --weights")
    plain = save_reader("plain.ckpt", tiny_reader(ResNet18, PlainStem), view="Plaintext")
    failed(predict(plain, "--weights", "thesis"), "cipher 'thesis' is not exact")
    failed(predict("classifier.ckpt", "--weights", "thesis"), "reads no others (KeyedStem)")
    wild = tiny_reader(ResNet18)
    wild.stem.convolution.weight.data.fill_(float("nan"))
    failed(predict(save_reader("wild.ckpt", wild)), "a.encdl: the reader's answer is no number")
    many = Reader(KeyedStem(1, 4), ResNet18(4, 300, width=4))
    failed(predict(save_reader("many.ckpt", many, classes=["x"] * 300)), "tells 300 classes, more than 256")
    torch.save([1], "list.ckpt")
    Path("empty.ckpt").touch()
    for name in ("k.key", "a.png", "list.ckpt", "empty.ckpt", agile):
        failed(predict(name), f"{name}: not a checkpoint of a reader")
    failed(predict("gone.ckpt"), "gone.ckpt: no such checkpoint")
    failed(predict("."), "no such checkpoint")
    failed(predict("classifier.ckpt", "--weights", "gone.pt"), "gone.pt: no such weights file")


def test_a_reader_of_the_baseline_reads_the_baseline(run: Run, files: list[Path]) -> None:
    """Its ciphertext is not exact, so that the mask is what training took for it."""
    thesis = weights.load("thesis")
    save_reader("r.ckpt", tiny_reader(ResNet18), thesis)
    assert run("encrypt", "a.png", *KEYED, "--weights", "thesis", "-o", "t.encdl")[0] == 0
    code, out, _ = run("predict", "t.encdl", *KEYED, "--reader", "r.ckpt")
    assert (code, len(rows(out))) == (0, 1)
    failed(run("predict", "a.encdl", *KEYED, "--reader", "r.ckpt"), "was made by cipher 'agile'")


def test_outputs_that_cannot_be(run: Run, files: list[Path]) -> None:
    def classify(*words: object) -> tuple[int, str, str]:
        return run("predict", *files, *KEYED, "--reader", "classifier.ckpt", *words)

    def segment(*words: object) -> tuple[int, str, str]:
        return run("predict", *files, *KEYED, "--reader", "segmenter.ckpt", *words)

    Path("t.csv").touch()
    failed(classify("-o", "t.csv"), "t.csv: exists already", "--force")
    assert classify("-o", "t.csv", "--force")[0] == 0
    failed(classify("-o", "sub"), "sub: the output is a folder")
    failed(classify("-o", "no/t.csv"), "there is no folder no")
    for name in ("k.key", "classifier.ckpt", "b.encdl"):
        failed(classify("-o", name, "--force"), f"same file as the input {name}")
    failed(classify("--overlay"), "is a classifier: --format and --overlay are for segmenters")
    failed(classify("--format", "nii"), "is a classifier")
    failed(segment(), "is a segmenter: give a folder for its masks with --output")
    failed(segment("-o", "t.csv"), "t.csv: is a file: masks go into a folder")
    failed(segment("-o", "no/out"), "there is no folder no")
    assert segment("-o", "out")[0] == 0
    failed(segment("-o", "out"), "out/a.mask.png: exists already")
    assert segment("-o", "out", "--overlay", "--force")[0] == 0
    failed(segment("-o", "out", "--overlay", "--format", "nii"), "out/a.overlay.png: exists already")
    os.rename("b.encdl", "out/a.mask.png")
    result = run(
        "predict", "a.encdl", "out/a.mask.png", *KEYED, "--reader", "segmenter.ckpt", "-o", "out", "--force"
    )
    failed(result, "out/a.mask.png: the mask would replace a file that is read")


def test_files_of_one_name(run: Run, files: list[Path]) -> None:
    os.rename("sub/c.encdl", "sub/a.encdl")
    options = [*KEYED, "--reader", "segmenter.ckpt", "-o", "out"]
    failed(run("predict", "a.encdl", "sub/a.encdl", *options), "would both become out/a.mask.png")
    assert run("predict", ".", *options)[0] == 0
    assert Path("out/sub/a.mask.png").exists()


@pytest.mark.parametrize("after", [0, 1])
def test_an_interruption_leaves_whole_masks_alone(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], after: int
) -> None:
    plain, calls = os.fsync, iter(range(99))

    def interrupt(descriptor: int) -> None:
        if next(calls) >= 2 * after:  # one for the file, one for its folder
            raise KeyboardInterrupt
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", interrupt)
    words = [*map(str, files), *KEYED, "-o"]
    capfd.readouterr()
    assert main(["predict", *words, "out", "--reader", "segmenter.ckpt"]) == 130
    assert os.listdir("out") == ["a.mask.png"] * after
    calls = iter([9])
    assert main(["predict", *words, "t.csv", "--reader", "classifier.ckpt"]) == 130
    assert not Path("t.csv").exists()
    assert capfd.readouterr() == ("", "encdl: interrupted\n" * 2)


def test_the_bar_is_for_terminals_and_long_runs(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", *map(str, files), "gone.encdl", *KEYED, "--reader", "classifier.ckpt"]
    monkeypatch.setattr("encdl.commands.predict.QUIET_S", 0.0)
    capfd.readouterr()
    assert main(words) == 1
    assert "file/s" not in capfd.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(words) == 1
    out, err = capfd.readouterr()
    assert "| 0/4 [" in err
    assert "encdl: error: gone.encdl: no such file" in err
    assert len(rows(out)) == 3


def test_odd_names_of_files_and_classes(run: Run, files: list[Path]) -> None:
    odd = os.fsdecode(b"x,\xff\n.encdl")
    os.rename("a.encdl", odd)
    save_reader("r.ckpt", tiny_reader(ResNet18), classes=["a,b", 'say "c"', "d\u00e9"])
    assert run("predict", odd, "b.encdl", *KEYED, "--reader", "r.ckpt", "-o", "t.csv")[0] == 0
    with Path("t.csv").open(newline="") as stream:
        table = list(csv.reader(stream))
    assert table[0] == [
        "file",
        "predicted",
        "probability of a,b",
        'probability of say "c"',
        "probability of d\u00e9",
    ]
    assert [row[0] for row in table[1:]] == ["x,\\udcff\n.encdl", "b.encdl"]
    failed(run("predict", odd + ".no", *KEYED, "--reader", "r.ckpt"), "no such file")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there(run: Run, files: list[Path]) -> None:
    failed(
        run("predict", "a.encdl", *KEYED, "--reader", "classifier.ckpt", "--device", "cuda"), "no CUDA device"
    )


BROKEN = [
    ("encdl.readers.Reader.forward", MemoryError(), "a.encdl: out of memory"),
    (
        "encdl.readers.Reader.forward",
        RuntimeError("can't allocate memory: 9 bytes"),
        "a.encdl: out of memory",
    ),
    (
        "encdl.container.Reader.chunks",
        OSError(5, "Input/output error"),
        "a.encdl: cannot be read (Input/output error)",
    ),
]


@pytest.mark.parametrize(("place", "error", "said"), BROKEN)
def test_a_machine_that_fails_is_told_for_the_file(
    run: Run, files: list[Path], monkeypatch: pytest.MonkeyPatch, place: str, error: Exception, said: str
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(place, fails)
    failed(run("predict", "a.encdl", *KEYED, "--reader", "classifier.ckpt"), said)


def test_a_bug_is_not_hidden(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("encdl.readers.Reader.forward", fails)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["predict", "a.encdl", *KEYED, "--reader", "classifier.ckpt"])


@pytest.mark.filterwarnings("error")
def test_files_with_leaky_planes_are_read_without_a_word(run: Run, files: list[Path]) -> None:
    options = ["--expansion", "periodic", "--period", "8", "-o", "l.encdl"]
    assert run("encrypt", "a.png", *KEYED, *options)[0] == 0
    code, out, err = run("predict", "l.encdl", "a.encdl", *KEYED, "--reader", "classifier.ckpt")
    assert (code, err) == (0, "")
    first, second = rows(out)
    assert first["predicted"] == second["predicted"]
