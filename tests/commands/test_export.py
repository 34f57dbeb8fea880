"""`encdl export`: a checkpoint becomes a small file that encrypts or reads as the checkpoint does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from encdl import readers
from encdl.ciphers import weights
from encdl.ciphers.weights import without_places
from encdl.files import images
from encdl.readers import KeyedStem, MonaiNet, Reader
from tests.commands.conftest import Run, failed
from tests.reader_checkpoint import CLASSES, SIZE, resnet, save_reader, tiny_reader, unet
from tests.training.tasks.support import FewSlices, tiny_task, trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a tiny run."""
    folder = tmp_path_factory.mktemp("trained")
    fitting = trainer(folder, 2)
    fitting.fit(tiny_task(), FewSlices())
    fitting.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


def test_export(run: Run, trained: Path) -> None:
    code, out, err = run("export", trained, "-o", "small.pt")
    assert (code, err) == (0, "")
    checkpoint, small = weights.load(trained), weights.load("small.pt")
    assert out.startswith(f"small.pt: agile, weights {small.id}, ")
    assert small.id == checkpoint.id
    assert small.training == checkpoint.training


def test_folders_of_the_machine_are_not_exported() -> None:
    places = {"default_root_dir": "/home/me", "logger": {"init_args": {"root": "/home/me"}}, "callbacks": None}
    training = {"steps": 2, "settings": {"trainer": {**places, "max_steps": 2}, "model": {"a": 1}}}
    kept = {"steps": 2, "settings": {"trainer": {"max_steps": 2}, "model": {"a": 1}}}
    assert without_places(training) == kept
    assert training["settings"]["trainer"].keys() > {"logger"}  # type: ignore[attr-defined, index]
    assert without_places({"steps": 2}) == {"steps": 2}


def test_what_the_export_keeps(run: Run, trained: Path) -> None:
    assert run("export", trained, "-o", "small.pt")[0] == 0
    checkpoint, small = weights.load(trained), weights.load("small.pt")
    assert small.training["steps"] == 2
    assert Path("small.pt").stat().st_size < 0.5 * trained.stat().st_size
    for key, value in small.cipher.decryption.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(value, checkpoint.cipher.decryption.state_dict()[key])  # type: ignore[union-attr]


def test_files_open_with_either(run: Run, trained: Path) -> None:
    assert run("export", trained, "-o", "small.pt")[0] == 0
    assert run("encrypt", "scan.png", "--key", "k.key", "--weights", trained)[0] == 0
    assert run("decrypt", "scan.encdl", "--key", "k.key", "--weights", "small.pt", "-o", "b.png")[0] == 0
    assert (images.read("b.png") == images.read("scan.png")).all()


def test_a_weights_file_can_be_exported_again(run: Run, agile: Path) -> None:
    assert run("export", agile, "-o", "again.pt")[0] == 0
    assert weights.load("again.pt").id == weights.load(agile).id


def test_an_existing_output_is_refused_before_the_work(
    run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("there.pt").write_text("precious")

    def begun(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    with monkeypatch.context() as patch:
        patch.setattr(weights, "load", begun)
        code, _, err = run("export", trained, "-o", "there.pt")
        assert (code, "there.pt: exists already" in err) == (2, True)
        code, _, err = run("export", trained, "-o", "none/there.pt")
        assert (code, "there is no folder none" in err) == (2, True)
        code, _, err = run("export", trained, "-o", trained, "--force")
        assert (code, "is the same file as the input" in err) == (2, True)
    assert Path("there.pt").read_text() == "precious"
    assert run("export", trained, "-o", "there.pt", "--force")[0] == 0
    assert weights.load("there.pt").cipher.name == "agile"


def test_what_is_no_checkpoint(run: Run, folder: Path) -> None:
    torch.save({"state_dict": {}}, folder / "other.ckpt")
    torch.save([1, 2], folder / "list.ckpt")
    (folder / "empty.ckpt").touch()
    for name, said in {
        "none.ckpt": "none.ckpt: no such weights file",
        "scan.png": "scan.png: not a weights file",
        "other.ckpt": "other.ckpt: not EncDL weights",
        "list.ckpt": "list.ckpt: not EncDL weights: it holds a list",
        "empty.ckpt": "empty.ckpt: not a weights file",
        ".": "no such weights file",
    }.items():
        code, _, err = run("export", name, "-o", "w.pt")
        assert (code, said in err) == (2, True), err


def test_a_disk_that_is_full(run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "w.pt")

    monkeypatch.setattr("encdl.utils.atomic.os.fsync", full)
    code, _, err = run("export", trained, "-o", "w.pt")
    assert code == 2
    assert "w.pt: No space left on device: nothing was written" in err


def volumes(kind: str) -> tuple[Reader, dict[str, Any]]:
    """A 3-D reader, and what its checkpoint says of it."""
    arguments: dict[str, Any] = {
        "UNet": {"channels": [4, 8], "strides": [2], "num_res_units": 1},
        "ResNet": {"block": "basic", "layers": [1] * 4, "block_inplanes": [4] * 4, "conv1_t_size": 3},
    }
    body = MonaiNet(4, 3, kind, arguments[kind], multiple=2, dimensions=3)
    return Reader(KeyedStem(1, 4, 3), body).eval(), {"size": [9, 10, 12], "classes": ["a", "b", "c"]}


READERS: dict[str, Callable[[], tuple[Reader, dict[str, Any]]]] = {
    "classifier": lambda: (tiny_reader(resnet), {}),
    "segmenter": lambda: (tiny_reader(unet), {}),
    "segmenter of volumes": lambda: volumes("UNet"),
    "classifier of volumes": lambda: volumes("ResNet"),
}


@pytest.mark.parametrize("ending", [".pt2", ".onnx", ".ts"])
@pytest.mark.parametrize("kind", READERS)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_reader_is_exported_for_other_programs(run: Run, kind: str, ending: str) -> None:
    """For one image and for three, though the example of the export has two."""
    if ending == ".onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
    reader, about = READERS[kind]()
    save_reader("reader.ckpt", reader, **about)
    code, out, err = run("export", "reader.ckpt", "-o", f"reader{ending}")
    assert code == 0, err
    assert out.startswith(f"reader{ending}: reader {reader.backbone.title}, view Ciphertext, of agile")
    if ending == ".onnx":
        session = onnxruntime.InferenceSession("reader.onnx")
        kept = json.loads(session.get_modelmeta().custom_metadata_map["encdl"])
        assert kept["classes"] == about.get("classes", [*CLASSES[unet if reader.backbone.per_pixel else resnet]])
    for count in (1, 3):
        image, mask = torch.randint(0, 256, (2, count, 1, *about.get("size", SIZE)), dtype=torch.uint8)
        if ending == ".onnx":
            [logits] = session.run(["logits"], {"ciphertext": image.numpy(), "mask": mask.numpy()})
        elif ending == ".ts":
            logits = torch.jit.load("reader.ts")(image, mask).detach().numpy()
        else:
            logits = torch.export.load("reader.pt2").module()(image, mask).detach().numpy()
        assert logits == pytest.approx(reader(image, mask).detach().numpy(), abs=1e-4)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.filterwarnings("ignore")  # PyTorch about TorchScript
def test_the_torchscript_of_a_bundle_takes_any_number_of_images(run: Run, kind: str) -> None:
    reader, about = READERS[kind]()
    save_reader("reader.ckpt", reader, **about)
    code, _, err = run("export", "reader.ckpt", "-o", "r.bundle")
    assert (code, "`encdl predict` has others for CT, MR, PT" in err) == (0, "volumes" in kind)
    network = torch.jit.load("r.bundle/models/model.ts")
    for count in (1, 3):
        image = torch.randint(0, 256, (count, 1, *about.get("size", SIZE)), dtype=torch.uint8)
        expected = reader(image, torch.zeros_like(image)).detach().numpy()
        assert network(image.float()).detach().numpy() == pytest.approx(expected, abs=1e-4)
    failed(run("export", "reader.ckpt", "-o", "r.bundle"), "folder")


def test_a_reader_keeps_its_cipher(run: Run) -> None:
    reader = tiny_reader(unet)
    path = save_reader("reader.ckpt", reader)
    content = torch.load(path, weights_only=True) | {"optimizer_states": [torch.zeros(99999)]}
    torch.save(content, path)
    assert run("export", path, "-o", "small.pt")[0] == 0
    assert Path("small.pt").stat().st_size < path.stat().st_size - 99999
    assert readers.load("small.pt").reader.config() == reader.config()
    assert weights.load("small.pt").id == weights.load(path).id


def test_what_is_not_exported(run: Run, trained: Path) -> None:
    for output, told in {
        "c.onnx": "holds a cipher",
        "c.pt2": "no reader: export it as .pt",
        "c.ts": "holds a cipher",
        "c.tflite": "give .pt",
    }.items():
        code, out, err = run("export", trained, "-o", output)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert told in err
        assert not Path(output).exists()
