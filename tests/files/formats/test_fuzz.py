"""Mutated files of every format go through a folder run: each is encrypted or named, whatever decoders make of it."""

from __future__ import annotations

import collections
import random
from pathlib import Path

import pydicom
import pytest

import encdl
from encdl.utils import worker_process
from encdl.utils.errors import EncdlError
from tests.files.container import test_fuzz
from tests.files.formats.test_dicom import HARMFUL, harmful
from tests.files.formats.test_names import files

WEIGHTS = str(Path(__file__).parents[2] / "golden" / "containers" / "tiny.pt")
SAMPLES = ("MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPEG2000.dcm", "SC_rgb_jpeg.dcm", "JPGExtended.dcm")
MUTATIONS = [test_fuzz.flip, test_fuzz.cut, test_fuzz.insert, test_fuzz.remove, test_fuzz.overwrite, test_fuzz.reorder]
BATCH = 250


def mutate(original: bytes, rng: random.Random) -> bytes:
    data = bytearray(original)
    for _ in range(rng.choice((1, 1, 2, 5))):
        if data:
            rng.choice(MUTATIONS)(data, rng)
    return bytes(data)


def fuzz(folder: Path, mutants: int) -> collections.Counter[str]:
    """Batches of mutants, with a frame that aborts its decoder, one that hangs it, and a sound file behind them."""
    test_files = Path(pydicom.__file__).parent / "data" / "test_files"
    (folder / "made").mkdir()
    corpus = [*files(folder / "made").values(), *((test_files / name).read_bytes() for name in SAMPLES)]
    key, rng, tally = encdl.Key(bytes(32)), random.Random(2026), collections.Counter[str]()
    for batch in range(mutants // BATCH):
        place, out = folder / f"in{batch}", folder / f"out{batch}"
        place.mkdir()
        contents = {f"{number:03}.dcm": mutate(rng.choice(corpus), rng) for number in range(BATCH)}
        if batch % 20 == 0:
            contents |= {f"1-{name}.dcm": harmful(name) for name in HARMFUL}
        contents["z.dcm"] = corpus[0]
        for name, data in contents.items():
            (place / name).write_bytes(data)
        ended = encdl.convert_folder(encdl.encryption(key, weights=WEIGHTS), place, out)
        failed = {path: error for path, error in ended.items() if isinstance(error, Exception)}
        assert all(isinstance(error, EncdlError) for error in failed.values()), failed
        assert all("\n" not in str(error) for error in failed.values())
        done = {path.name.removesuffix(".encdl") for path in out.iterdir()}
        assert done | {path.name for path in failed} == set(contents)
        assert "z.dcm" in done
        crashed = [str(error) for error in failed.values() if "came to no end" in str(error)]
        assert len(crashed) >= 2 * (batch % 20 == 0)
        tally.update(mutants=BATCH, refused=len(failed), encrypted=len(done), crashed=len(crashed))
        for name in rng.sample(sorted(done), 10):
            back = encdl.decrypt_file(out / f"{name}.encdl", key, out / name, weights=WEIGHTS)
            assert back.read_bytes() == contents[name]
    return tally


@pytest.mark.filterwarnings("ignore")  # libraries', about what they read
def test_some_mutated_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "SECONDS", 2.0)
    assert fuzz(tmp_path, BATCH)["refused"] > BATCH / 10


@pytest.mark.slow
@pytest.mark.timeout(1700)
@pytest.mark.filterwarnings("ignore")
def test_twenty_thousand_mutated_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "SECONDS", 2.0)
    tally = fuzz(tmp_path, 20_000)
    print(tally)
    assert tally["mutants"] == 20_000
