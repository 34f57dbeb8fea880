"""What `encdl predict` refuses, tells in one line, and goes on after."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from encdl.ciphers import weights
from encdl.cli import main
from encdl.files import images
from encdl.keys.key import Key
from encdl.readers import KeyedStem, KeylessStem, MonaiNet, PlainStem, Reader
from encdl.readers.predictor import Predictor
from tests.commands.conftest import KEYED, Run, rows
from tests.commands.test_files import failed, noise
from tests.reader_checkpoint import SIZE, resnet, save_reader, smooth, tiny_reader, unet


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


def test_images_that_the_reader_cannot_read(run: Run, files: list[Path]) -> None:
    cases = {
        "colour.png": (noise((*SIZE, 3)), "has 3 channels, the reader takes 1 channel"),
        "stack.npy": (noise((*SIZE, 9)), "holds 21 slices, and this reader takes one image a file: encrypt each slice"),
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
    small = {"init_features": 8, "growth_rate": 4, "block_config": [1, 1, 1]}
    dense = Reader(KeyedStem(1, 4), MonaiNet(4, 3, "DenseNet", small)).eval()
    save_reader("dense.ckpt", dense, classes=["a", "b", "c"])
    failed(run("predict", *options, "--reader", "dense.ckpt", "--any-size"), "1x1 pixels are too few")


def test_colour(run: Run, folder: Path) -> None:
    images.write("c.png", np.stack([smooth(seed) for seed in range(3)], axis=2))
    assert run("encrypt", "c.png", *KEYED, "--postprocess", "both")[0] == 0
    plain = tiny_reader(unet, PlainStem, channels=3)
    predictor = Predictor.load(save_reader("r.ckpt", plain, view="Plaintext"))
    answer = predictor.read("c.encdl", Key.load("k.key"))
    image = torch.from_numpy(images.read("c.png").copy()).movedim(2, 0)[None]
    assert torch.allclose(answer.logits, plain(image)[0], atol=1e-4)
    assert run("predict", "c.encdl", *KEYED, "--reader", "r.ckpt", "-o", "out", "--overlay")[0] == 0
    assert images.read("out/c.overlay.png").shape == (*SIZE, 3)


def test_readers_that_cannot_serve(run: Run, files: list[Path], agile: Path) -> None:
    def predict(reader: object, *words: object) -> tuple[int, str, str]:
        return run("predict", "a.encdl", *KEYED, "--reader", reader, *words)

    keyless = save_reader("keyless.ckpt", tiny_reader(resnet, KeylessStem), view="Keyless")
    failed(predict(keyless), "keyless.ckpt: was trained without the key (view Keyless, KeylessStem)")
    less = torch.load(keyless, weights_only=True)
    less["state_dict"].pop(next(name for name in less["state_dict"] if name.startswith("reader.")))
    torch.save(less, "less.ckpt")
    failed(predict("less.ckpt"), "less.ckpt: holds weights of another network than it says")
    odd = save_reader("odd.ckpt", tiny_reader(resnet, PlainStem), view="Keyless")
    failed(predict(odd), "trained without the key (view Keyless, PlainStem)")
    plain = save_reader("plain.ckpt", tiny_reader(resnet, PlainStem), view="Plaintext")
    failed(predict(plain, "--weights", "thesis"), "cipher 'thesis' is not exact")
    failed(predict("classifier.ckpt", "--weights", "thesis"), "reads no others (cipher 'thesis' is not exact)")
    wild = tiny_reader(resnet)
    wild.stem.convolution.weight.data.fill_(float("nan"))
    failed(predict(save_reader("wild.ckpt", wild)), "a.encdl: the reader's answer is no number")
    many = Reader(KeyedStem(1, 4), resnet(4, 300, width=4))
    failed(predict(save_reader("many.ckpt", many, classes=["x"] * 300)), "tells 300 classes, more than 256")
    torch.save([1], "list.ckpt")
    Path("empty.ckpt").touch()
    for name in ("k.key", "a.png", "list.ckpt", "empty.ckpt"):
        failed(predict(name), f"{name}: not a checkpoint of a reader")
    failed(
        predict(agile),
        f"{agile}: holds a cipher (agile, weights {weights.load(agile).id}) and no reader: give the checkpoint of a "
        "classifier or segmenter as the reader",
    )
    failed(predict("gone.ckpt"), "gone.ckpt: no such checkpoint")
    failed(predict("."), "no such checkpoint")
    failed(predict("classifier.ckpt", "--weights", "gone.pt"), "gone.pt: no such weights file")


def test_a_reader_of_the_baseline_reads_the_baseline(run: Run, files: list[Path]) -> None:
    """Its ciphertext is not exact, so that the mask is what training took for it."""
    thesis = weights.load("thesis")
    save_reader("r.ckpt", tiny_reader(resnet), thesis)
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
    failed(classify("--overlay"), "is a classifier: --masks and --overlay are for segmenters")
    failed(classify("--masks", "nifti"), "is a classifier")
    failed(segment(), "is a segmenter: give a folder for its masks with --output")
    failed(segment("-o", "t.csv"), "t.csv: is a file: masks go into a folder")
    failed(segment("-o", "no/out"), "there is no folder no")
    assert segment("-o", "out")[0] == 0
    failed(segment("-o", "out"), "out/a.mask.png: exists already")
    assert segment("-o", "out", "--overlay", "--force")[0] == 0
    failed(segment("-o", "out", "--overlay", "--masks", "nifti"), "out/a.overlay.png: exists already")
    os.rename("b.encdl", "out/a.mask.png")
    result = run("predict", "a.encdl", "out/a.mask.png", *KEYED, "--reader", "segmenter.ckpt", "-o", "out", "--force")
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
    save_reader("r.ckpt", tiny_reader(resnet), classes=["a,b", 'say "c"', "d\u00e9"])
    assert run("predict", odd, "b.encdl", *KEYED, "--reader", "r.ckpt", "-o", "t.csv")[0] == 0
    with Path("t.csv").open(newline="") as stream:
        table = list(csv.reader(stream))
    assert table[0] == ["file", "predicted", "probability of a,b", 'probability of say "c"', "probability of d\u00e9"]
    assert [row[0] for row in table[1:]] == ["x,\\udcff\n.encdl", "b.encdl"]
    failed(run("predict", odd + ".no", *KEYED, "--reader", "r.ckpt"), "no such file")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there(run: Run, files: list[Path]) -> None:
    failed(run("predict", "a.encdl", *KEYED, "--reader", "classifier.ckpt", "--device", "cuda"), "no CUDA device")


BROKEN = [
    ("encdl.readers.Reader.forward", MemoryError(), "a.encdl: out of memory"),
    ("encdl.readers.Reader.forward", RuntimeError("can't allocate memory: 9 bytes"), "a.encdl: out of memory"),
    (
        "encdl.files.container.ContainerReader.chunks",
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
