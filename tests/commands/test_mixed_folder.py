"""A folder as a hospital has it: series, multi-frame and compressed files, pairs, reports, links."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile

from encdl.cli import main
from encdl.commands.encrypt import FOREIGN
from encdl.commands.many_files import NAMED
from encdl.files import container
from tests.files.formats.support import noise
from tests.files.formats.test_dicom import save, scan

WEIGHTS = str(Path(__file__).parents[1] / "golden" / "containers" / "tiny.pt")
SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
COMPRESSED = ("MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPEG2000.dcm")

Verb = Callable[..., tuple[int, str]]


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Verb:
    """Runs a verb with key and weights; gives exit code and what was told on stderr."""
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", "k.key"]) == 0
    Path("in").mkdir()

    def run(name: str, *words: str) -> tuple[int, str]:
        capfd.readouterr()
        code = main([name, *words, "--key", "k.key", "--weights", WEIGHTS, "--device", "cpu"])
        return code, capfd.readouterr().err

    return run


def tree(folder: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_series_and_compressed_files_come_back_byte_for_byte(verb: Verb) -> None:
    """A series is kept file by file, under the names that the scanner gave, endings or none."""
    Path("in/series").mkdir()
    for number in range(4):
        dataset = scan(noise((1, 9, 7, 1), "int16", number), InstanceNumber=number, SeriesInstanceUID="1.2.3")
        save(Path("in/series", f"IM{number:04d}"), dataset)
    save(Path("in/cine.dcm"), scan(noise((3, 9, 7, 3))))
    for name in COMPRESSED:
        shutil.copy(SAMPLES / name, "in")
    tifffile.imwrite("in/colour.tif", noise((9, 8, 3), "uint16"), photometric="rgb")
    tifffile.imwrite("in/deflated.tif", noise((9, 8, 3), "uint16"), photometric="rgb", compression="zlib")
    before = tree("in")
    code, err = verb("encrypt", "in", "--output", "enc", "--jobs", "2")
    assert (code, "warning" in err) == (0, False), err
    made = tree("enc")
    assert sorted(made) == sorted(f"{name}.encdl" for name in before)
    assert not any(b"Doe^Jane" in data or b"1.2.3" in data for data in made.values())
    header = container.read_header(Path("enc/series/IM0002.encdl"))
    assert (header.shape, header.dtype, header.layout) == ((9, 7), "int16", "HW")
    assert container.read_header(Path("enc/cine.dcm.encdl")).layout == "SHWC"
    code, err = verb("decrypt", "enc", "--output", "dec")
    assert code == 0, err
    assert tree("dec") == before


def test_a_folder_is_inspected_without_a_key(verb: Verb, capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        save(Path("in", f"IM{number}"), scan(noise((1, 9, 7, 1), "int16", number)))
    np.save("in/v.npy", noise((2, 6, 5)))
    assert verb("encrypt", "in", "--output", "enc", "--study", "S")[0] == 0
    assert verb("encrypt", "in/v.npy", "--output", "enc/w.encdl", "--wrap", "aes")[0] == 0
    key = container.read_header(Path("enc/v.npy.encdl")).key_id
    capfd.readouterr()
    assert main(["inspect", "enc"]) == 0
    out = capfd.readouterr().out
    assert out.endswith(
        f"3 files: 9x7 int16 (HW), key {key}, study 'S'\n1 file: 2x6x5 uint8 (SHW), key {key}, study 'S'\n"
        f"1 file: wrapped in AES-256-GCM, key {key}, no study\n"
    )
    Path("enc/v.npy.encdl").write_bytes(Path("enc/v.npy.encdl").read_bytes()[:-5])
    Path("enc/x.encdl").write_bytes(b"no such file")
    assert main(["inspect", "enc", "--json"]) == 1
    out, err = capfd.readouterr()
    assert [json.loads(line)["file"] for line in out.splitlines()] == [
        *(f"enc/IM{number}.encdl" for number in range(3)), "enc/v.npy.encdl", "enc/w.encdl"
    ]  # fmt: skip
    assert [line.split(":")[2] for line in err.splitlines()] == [" enc/v.npy.encdl", " enc/x.encdl"]


def test_what_is_left_alone_is_told(verb: Verb) -> None:
    array = noise((5, 4, 3), "int16")
    nibabel.save(nibabel.Nifti1Pair(array, np.eye(4)), "in/pair.img")
    nibabel.save(nibabel.Spm99AnalyzeImage(array, np.eye(4)), "in/old.img")
    np.save("in/a.npy", array)
    Path("in/text").write_text("BM: a text")
    Path("in/z.txt").write_text("another")
    Path("in/.hidden").touch()
    for name, target in {"folder": "..", "nowhere.dcm": "missing", "b.npy": "a.npy"}.items():
        os.symlink(target, Path("in", name))
    before = tree("in")
    code, err = verb("encrypt", "in", "--output", "enc")
    assert code == 1
    others = ["in/old.hdr", "in/old.img", "in/old.mat", "in/pair.img", "in/text", "in/z.txt"]
    told = f"{FOREIGN}: {', '.join(others[:NAMED])} and 1 more"
    assert "in/pair.hdr: is half of a pair" in err
    for why in (told, "links to folders: in/folder", "links that lead nowhere: in/nowhere.dcm"):
        assert f"warning: left alone, NOT encrypted, {why}\n" in err
    assert "1 file encrypted, 1 failed, 8 left alone, 1 passed over" in err
    assert sorted(tree("enc")) == ["a.npy.encdl"]  # b.npy is the same file
    assert tree("in") == before


@pytest.mark.parametrize("name", ["pair.hdr", "pair.img", "pair.hdr.gz", "pair.img.gz", "old.hdr", "old.img"])
def test_half_of_a_pair_is_refused(verb: Verb, name: str) -> None:
    array, kind = noise((5, 4, 3), "int16"), nibabel.Nifti1Pair
    if name.startswith("old"):
        kind = nibabel.Spm99AnalyzeImage
    nibabel.save(kind(array, np.eye(4)), Path("in", name.replace("hdr", "img")))
    code, err = verb("encrypt", f"in/{name}", "--output", "x.encdl")
    assert code == 2
    assert err == (
        f"encdl: error: in/{name}: is half of a pair of .hdr and .img (NIfTI or Analyze): convert it to one .nii file\n"
    )
    assert not Path("x.encdl").exists()


def test_too_much_beside_the_pixels_is_refused(verb: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    """A huge header: what nobody could open in bounded memory is not written."""
    monkeypatch.setattr("encdl.files.formats.non_pixel_data.MAX_REST_BYTES", 10**5)
    image = nibabel.Nifti1Image(noise((5, 4, 3), "int16"), np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", noise((200_000,)).tobytes()))
    nibabel.save(image, "in/a.nii")
    dataset = scan(noise((1, 5, 4, 1)))
    dataset.private_block(0x0011, "A maker").add_new(2, "OB", noise((200_000,)).tobytes())
    save(Path("in/b.dcm"), dataset)
    code, err = verb("encrypt", "in", "--output", "enc")
    assert code == 2
    for name in ("a.nii", "b.dcm"):
        assert f"encdl: error: in/{name}: holds 200," in err
    assert err.count("(limit 100,000) beside its pixels: take the largest of them out first") == 2
    monkeypatch.undo()
