"""`encdl predict`: what a trained network says about encrypted files, without decrypting them."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from encdl.commands.common import (
    add_cipher,
    add_output,
    different_files,
    one_line_warnings,
    open_key,
    usable_device,
)
from encdl.commands.key_options import add_key
from encdl.commands.many_files import (
    EXIT_ALL_FAILED,
    EXIT_SOME_FAILED,
    QUIET_S,
    Failures,
    counted,
    gather,
)
from encdl.files import container
from encdl.files.folders import Source
from encdl.keys.planes import WeakPlanesWarning
from encdl.utils import atomic
from encdl.utils.errors import EncdlError, UsageError
from encdl.utils.lazy import without

if TYPE_CHECKING:
    from encdl.keys.key import Opener
    from encdl.readers.predictor import Answer, Predictor

FORMATS = {"png": ".mask.png", "nii": ".mask.nii.gz"}
OVERLAY = ".overlay.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="FILE",
        help=".encdl files, or folders: all .encdl files below them, sorted by name",
    )
    add_key(parser)
    parser.add_argument(
        "--reader",
        type=Path,
        required=True,
        metavar="CKPT",
        help="checkpoint of a classifier or segmenter, trained on ciphertext with the key, or on plaintext",
    )
    add_output(
        parser,
        "classifier: CSV file with a row for each FILE (default: print it); segmenter: folder for the masks",
    )
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        help="of masks: png (default; grey level = class index) or nii (.nii.gz)",
    )
    parser.add_argument(
        "--overlay",
        action="store_true",
        help="also draw each mask over the encrypted picture, as NAME.overlay.png; it shows no decrypted pixel",
    )
    parser.add_argument(
        "--any-size",
        action="store_true",
        help="let a classifier read pictures of another size than it was trained on, less reliably",
    )
    add_cipher(
        parser,
        "that the files were made with; default: that the reader was trained on",
        devices="a reader's answers differ between devices in their last digits",
    )


def run(args: argparse.Namespace) -> int:
    """Read every file; tell of those that cannot be read, and go on."""
    from encdl.files import file_names  # noqa: PLC0415

    sources = gather(args.paths, file_names.is_container, f"{container.SUFFIX} file")
    opener = open_key(args.key)
    inputs = [*args.key.files, args.reader, *(source.path for source in sources)]
    if args.output is not None:
        different_files(args.output, *inputs)
    from encdl.readers.predictor import Predictor  # noqa: PLC0415

    with one_line_warnings(ignore=WeakPlanesWarning):  # too late to tell: the files are what they are
        # MONAI imports whatever it finds; that takes longer than a picture does.
        with without("mlflow", "matplotlib.pyplot", "pandas"):
            predictor = Predictor.load(
                args.reader,
                weights_of_files=args.weights,
                device=usable_device(args.device),
                any_size=args.any_size,
            )
        reading = _Reading(sources, predictor, opener)
        if predictor.per_pixel:
            _write_masks(args, reading, inputs)
        else:
            _write_table(args, reading)
    return reading.end()


class _Reading:
    """Goes through the files with a progress bar, tells of each that cannot be read, and counts them."""

    def __init__(self, sources: Sequence[Source], predictor: Predictor, opener: Opener) -> None:
        self.sources, self.predictor, self.opener = sources, predictor, opener
        self._failures = Failures()

    def __iter__(self) -> Iterator[tuple[Source, Answer]]:
        from tqdm import tqdm  # noqa: PLC0415

        # No bar where nobody watches; `disable=None` asks whether stderr is a terminal.
        for source in tqdm(
            self.sources, unit="file", delay=QUIET_S, leave=False, disable=None, file=sys.stderr
        ):
            try:
                answer = self.predictor.read(source.path, self.opener)
            except EncdlError as error:
                self._failures.tell(source.path, error)
                continue
            yield source, answer

    def end(self) -> int:
        """Sum up on stderr; the exit code."""
        self._failures.tell_rest()
        failed = self._failures.count
        if failed and len(self.sources) > 1:
            print(f"encdl: {failed} of {len(self.sources)} files could not be read", file=sys.stderr)
        if not failed:
            return 0
        return EXIT_SOME_FAILED if failed < len(self.sources) else EXIT_ALL_FAILED


def _write_table(args: argparse.Namespace, reading: _Reading) -> None:
    """A classifier's answers as one CSV."""
    if args.format or args.overlay:
        raise UsageError(f"{args.reader}: is a classifier: --format and --overlay are for segmenters")
    if args.output is not None:
        atomic.check_output(args.output, args.force)
    classes, rows = reading.predictor.classes, []
    for source, answer in reading:
        probabilities = (f"{value:.6f}" for value in answer.probabilities)
        rows.append([str(source.path), classes[int(answer.best)], *probabilities])
    if not rows:
        return
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["file", "predicted", *(f"probability of {name}" for name in classes)])
    table.writerows(rows)
    if args.output is None:
        sys.stdout.write(stream.getvalue())
        return
    content = stream.getvalue().encode("utf-8", "backslashreplace")  # names may hold bytes of any kind
    atomic.write_bytes(args.output, content, force=args.force)
    print(f"{args.output}: {counted(len(rows))}")


def _write_masks(args: argparse.Namespace, reading: _Reading, inputs: Sequence[Path]) -> None:
    """A segmenter's answers as a mask a file, each written whole as soon as it is known."""
    from encdl.files import images, label_masks  # noqa: PLC0415

    if args.output is None:
        raise UsageError(f"{args.reader}: is a segmenter: give a folder for its masks with --output")
    mask_ending, written = FORMATS[args.format or "png"], 0
    endings = [mask_ending, *([OVERLAY] if args.overlay else [])]
    _check_folder(args.output, reading.sources, endings, inputs, args.force)
    for source, answer in reading:
        mask, target = answer.best, args.output / _mask_name(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if args.format == "nii":
            atomic.write_bytes(_named(target, mask_ending), label_masks.nifti_bytes(mask), force=args.force)
        else:
            images.write(_named(target, mask_ending), mask, force=args.force)
        if args.overlay:
            drawn = label_masks.overlay(mask, answer.ciphertext)
            images.write(_named(target, OVERLAY), drawn, force=args.force)
        written += 1
    if written:
        levels = ", ".join(f"{index} {name}" for index, name in enumerate(reading.predictor.classes))
        print(f"{args.output}: masks of {counted(written)}, with the levels {levels}")


def _mask_name(source: Source) -> Path:
    """Where the masks of a file go below the output folder, less their endings."""
    path = source.relative
    return path.with_suffix("") if path.suffix.lower() == container.SUFFIX else path


def _named(target: Path, ending: str) -> Path:
    return target.with_name(target.name + ending)


def _check_folder(
    folder: Path, sources: Sequence[Source], endings: Sequence[str], inputs: Sequence[Path], force: bool
) -> None:
    """Say early what could not be written below `folder`; it is made with the first mask."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file: masks go into a folder, give its name with --output")
    if not folder.absolute().parent.is_dir():
        raise UsageError(f"{folder}: there is no folder {folder.parent}: create it first")
    taken: dict[Path, Path] = {}
    read = {path.resolve() for path in inputs}
    for source in sources:
        name = _mask_name(source)
        other = taken.setdefault(name, source.path)
        if other is not source.path:
            raise UsageError(
                f"{other} and {source.path}: would both become {folder / name}{endings[0]}: read them into "
                "two folders, or give the folder above them"
            )
        for ending in endings:
            target = _named(folder / name, ending)
            if target.resolve() in read:
                raise UsageError(f"{target}: the mask would replace a file that is read: give another folder")
            if target.parent.is_dir():
                atomic.check_output(target, force)
