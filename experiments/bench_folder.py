"""Times `encdl encrypt` of a folder of small DICOM files beside an older version's.

Run it as `python experiments/bench_folder.py`. Both versions encrypt with the same interpreter, key and jobs, in turns;
the older one from a temporary git worktree of its tag, with its compiled code if there is a C compiler. Writes
experiments/results/folder.json.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from encdl.utils import records

ROOT = Path(__file__).parents[1]
LIMIT = 1.5
"""Times as long as the other version, at the most."""
A_SERIES, A_FOLDER = 50, 500


def make_files(folder: Path, count: int, side: int, seed: int) -> None:
    """Slices of CT series: a dark disc in noise, 12 bits in 16, as scanners write them."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    for number in range(count):
        series = number // A_SERIES
        name = meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[f"{seed} {number}"])
        image = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        image.SOPClassUID, image.SOPInstanceUID, image.Modality = CTImageStorage, name, "CT"
        image.PatientName, image.PatientID = f"Doe^{series}", str(series)
        image.SeriesInstanceUID = generate_uid(entropy_srcs=[f"{seed} series {series}"])
        image.StudyInstanceUID = generate_uid(entropy_srcs=[f"{seed} study {series}"])
        image.InstanceNumber, image.RescaleSlope, image.RescaleIntercept = number % A_SERIES + 1, 1, -1024
        image.Rows = image.Columns = side
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        tissue = 1000 + 200 * np.sin(9 * rows + series) + rng.normal(0, 20, rows.shape)
        pixels = np.where(np.hypot(rows, columns) < 0.9, tissue, 24)
        image.PixelData = pixels.clip(0, 4095).astype("<u2").tobytes()
        path = folder / str(number // A_FOLDER) / f"{number:05}.dcm"
        path.parent.mkdir(exist_ok=True)
        image.save_as(path, enforce_file_format=True)


@contextlib.contextmanager
def checkout(tag: str, folder: Path) -> Iterator[Path]:
    """A worktree of a tag, its compiled code built."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), tag], check=True)
    try:
        if compiler := shutil.which("cc"):
            library = folder / "encdl" / "_compiled.abi3.so"
            sources = map(str, (folder / "encdl").rglob("*.c"))
            subprocess.run([compiler, "-O3", "-shared", "-fPIC", "-o", str(library), *sources], check=True)
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def encdl(source: Path, *words: str) -> dict[str, float]:
    """Run a version's command, which must succeed: its seconds, and those of its processes."""
    # An editable installation of another source would be found before PYTHONPATH.
    start = f"import sys; sys.path.insert(0, {str(source)!r}); from encdl.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"PYTHONPATH": str(source)}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-P", "-c", start, *words],
        cwd=source, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    wall_s, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        sys.exit(f"{source}: encdl {words[0]} ended with {ended.returncode}: {ended.stderr[-500:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall_s, "processor_s": used}


def measure(args: argparse.Namespace, folder: Path, other: Path) -> dict[str, Any]:
    """Seconds of both versions, round after round, who is first in turns, and the ratio of each round."""
    originals = folder / "originals"
    originals.mkdir()
    make_files(originals, args.files, args.side, args.seed)
    sources, found = {"this": ROOT, args.tag: other}, {"this": [], args.tag: []}
    encdl(ROOT, "keygen", str(folder / "k.key"))
    for number in range(args.rounds):
        for name in list(sources)[:: -1 if number % 2 else 1]:
            out = folder / "out"
            words = [str(originals), "-o", str(out), "--key", str(folder / "k.key"), "--jobs", str(args.jobs)]
            found[name].append(encdl(sources[name], "encrypt", *words))
            made = sum(path.suffix == ".encdl" for path in out.rglob("*"))
            if made != args.files:
                sys.exit(f"{name}: {made:,} of {args.files:,} files were made")
            shutil.rmtree(out)
            print(f"round {number + 1}, {name}: {found[name][-1]['wall_s']:.1f} s", flush=True)
    clocks = ("wall_s", "processor_s")
    ratios = {
        clock: [new[clock] / old[clock] for new, old in zip(found["this"], found[args.tag], strict=True)]
        for clock in clocks
    }
    best = {clock: min(each[clock] for each in found["this"]) / min(each[clock] for each in found[args.tag])
            for clock in clocks}  # fmt: skip
    return {"seconds": found, "ratio_of_rounds": ratios, "ratio_of_fastest": best, "limit": LIMIT}


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=64, help="rows and columns of an image")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tag", default="v0.1", help="the other version")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "experiments" / "results" / "folder.json")
    return parser.parse_args()


def main() -> int:
    """Measure, print, write the record; 1 if the limit is exceeded."""
    args, started = arguments(), time.monotonic()
    with tempfile.TemporaryDirectory() as name, checkout(args.tag, Path(name, "other")) as other:
        metrics = measure(args, Path(name), other)
    content = records.record(
        args.output.stem,
        "folder",
        config="experiments/bench_folder.py",
        settings={name: value for name, value in vars(args).items() if name != "output"},
        dataset=f"{args.files:,} drawn CT slices as DICOM, {args.side} x {args.side}, 16 bit",
        seeds=[args.seed],
        metrics=metrics,
        wall_s=time.monotonic() - started,
        device="cpu",
        cores=os.cpu_count(),
        load_average=os.getloadavg()[0],
    )
    records.write(args.output, content, force=True)
    print(f"times as long as {args.tag}: {metrics['ratio_of_rounds']}; record: {args.output}")
    return int(metrics["ratio_of_fastest"]["wall_s"] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
