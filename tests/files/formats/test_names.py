"""Content says what a file is, its owner what it is called: every format under every ending, there and back."""

from __future__ import annotations

import gzip
import io
import itertools
from collections.abc import Callable
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image

from encdl.cli import main
from encdl.files import formats
from tests.files.formats.support import noise
from tests.files.formats.test_dicom import save, scan

WEIGHTS = str(Path(__file__).parents[2] / "golden" / "containers" / "tiny.pt")
ENDINGS = sorted({ending for kind in formats.FORMATS.values() for ending in kind.suffixes})
NAMES = [*ENDINGS, ".PNG", "", ".bin", ".txt", ".encdl", ".png.png", ".hdr"]
PREAMBLES = (b"II*\0", b"BM", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY", b"\x89ENCDL\r\n")


def saved(write: Callable[[Path], object], name: str, folder: Path) -> bytes:
    path = folder / name
    write(path)
    return path.read_bytes()


def pillow(kind: str, array: np.ndarray, mode: str | None = None) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array, mode).save(stream, kind)
    return stream.getvalue()


def files(folder: Path) -> dict[str, bytes]:
    """A file of every format, of some by several programs."""
    grey, voxels = noise((9, 7)), nibabel.Nifti1Image(noise((7, 6, 5), "int16"), np.eye(4))
    found = {
        "dicom": saved(lambda path: save(path, scan(noise((1, 9, 7, 1)))), "a.dcm", folder),
        "nifti": saved(lambda path: nibabel.save(voxels, path), "a.nii", folder),
        "nifti-gz": saved(lambda path: nibabel.save(voxels, path), "a.nii.gz", folder),
        "npy": saved(lambda path: np.save(path, grey), "a.npy", folder),
        "tiff": saved(lambda path: tifffile.imwrite(path, grey, photometric="minisblack"), "a.tif", folder),
        "tiff lzw": pillow("TIFF", grey),
        "png": pillow("PNG", grey),
        "png by OpenCV": cv2.imencode(".png", noise((9, 7, 3)))[1].tobytes(),
        "jpeg": pillow("JPEG", grey),
        "bmp": pillow("BMP", grey),
    }
    found["nifti-gz of another program"] = gzip.compress(found["nifti"], 9)
    found["nifti-gz in members"] = gzip.compress(b"") + b"".join(
        gzip.compress(found["nifti"][start : start + 100]) for start in range(0, len(found["nifti"]), 100)
    )
    for preamble in PREAMBLES:
        found[f"dicom behind {preamble!r}"] = preamble + found["dicom"][len(preamble) :]
    return found


def run(*words: str) -> None:
    assert main([*words, "--key", "k.key", "--weights", WEIGHTS, "--device", "cpu"]) == 0


def check(tmp_path: Path, cases: list[tuple[str, str]], alone: int = 1) -> None:
    """In a folder run, and every `alone`-th file by itself."""
    content = files(tmp_path)
    assert main(["keygen", "k.key"]) == 0
    Path("in").mkdir()
    originals = {f"{number}{ending}": content[kind] for number, (kind, ending) in enumerate(cases)}
    for name, data in originals.items():
        Path("in", name).write_bytes(data)
    run("encrypt", "in", "--output", "enc")
    run("decrypt", "enc", "--output", "dec")
    assert {path.name: path.read_bytes() for path in Path("dec").iterdir()} == originals
    for name, data in list(originals.items())[::alone]:
        path, before = Path("in", name), set(Path("in").iterdir())
        run("encrypt", str(path))
        path.unlink()
        [made] = set(Path("in").iterdir()) - before
        run("decrypt", str(made))
        assert path.read_bytes() == data, name


def cases() -> list[tuple[str, str]]:
    kinds = ["dicom", "nifti", "nifti-gz", "npy", "tiff", "tiff lzw", "png", "png by OpenCV", "jpeg", "bmp"]
    kinds += ["nifti-gz of another program", "nifti-gz in members"]
    kinds += [f"dicom behind {preamble!r}" for preamble in PREAMBLES]
    return list(itertools.product(kinds, NAMES))


def test_some_formats_under_some_endings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    every = cases()
    picked = np.random.default_rng(2).permutation(len(every))[:45]
    check(tmp_path, [every[index] for index in picked], alone=7)


@pytest.mark.slow
def test_every_format_under_every_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check(tmp_path, cases())


def test_permissions_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", "k.key"]) == 0
    for number, mode in enumerate((0o600, 0o640, 0o644)):
        Path(f"{number}.npy").write_bytes(files(tmp_path)["npy"])
        Path(f"{number}.npy").chmod(mode)
        run("encrypt", f"{number}.npy")
        run("decrypt", f"{number}.encdl", "--output", f"back{number}.npy")
        assert Path(f"back{number}.npy").stat().st_mode & 0o777 == mode
        run("decrypt", f"{number}.encdl", "--output", f"other{number}.png")
        assert Path(f"other{number}.png").stat().st_mode & 0o777 == 0o600
    Path("2.npy").chmod(0o600)
    Path("in").mkdir()
    Path("2.npy").rename("in/2.npy")
    run("encrypt", "in", "--output", "enc")
    Path("in/2.npy").chmod(0o644)
    run("encrypt", "in", "--output", "enc")  # finished before: permissions are no content


def test_a_study_is_carried_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    samples = Path(pydicom.__file__).parent / "data" / "test_files"
    assert main(["keygen", "k.key"]) == main(["keygen", "new.key"]) == 0
    Path("in/.hidden").mkdir(parents=True)
    originals = {
        "DICOMDIR": (samples / "dicomdirtests" / "DICOMDIR").read_bytes(),
        "SR": (samples / "reportsi.dcm").read_bytes(), "scan.dcm": files(tmp_path)["dicom"],
        ".like-a-container": files(tmp_path)[f"dicom behind {PREAMBLES[-1]!r}"],
        "report.pdf": b"%PDF-1.7 text", "empty.txt": b"", "notes.png": b"BM: a text",
        ".hidden/x": b"x", "cut.dcm": files(tmp_path)["dicom"][:300], "large.bin": bytes(2**21),
    }  # fmt: skip
    for name, data in originals.items():
        Path("in", name).write_bytes(data)
    weights = ["--weights", WEIGHTS, "--device", "cpu"]
    assert main(["encrypt", "in", "--key", "k.key", "--output", "some", *weights]) == 1
    capfd.readouterr()
    run("encrypt", "in", "--carry-others", "--output", "enc")
    assert "10 files encrypted, 8 of them no image, sealed as they are" in capfd.readouterr().err
    run("encrypt", "in", "--carry-others", "--output", "enc")
    assert "10 finished before" in capfd.readouterr().err
    assert main(["rekey", "enc", "--key", "k.key", "--new-key", "new.key", *weights]) == 0
    for _ in range(2):
        assert main(["decrypt", "enc", "--key", "new.key", "--output", "dec", *weights]) == 0
        found = {str(path.relative_to("dec")): path.read_bytes() for path in Path("dec").rglob("*") if path.is_file()}
        assert found == originals
    Path("dec/report.pdf").write_bytes(b"another")
    assert main(["decrypt", "enc", "--key", "new.key", "--output", "dec", *weights]) == 1
