"""`encdl predict`: what a trained network says about encrypted files, without decrypting them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdl.commands import functional_keys, predict_bundle
from encdl.commands.common import FORCE, OUTPUT, add_key, file_name, file_or_address, one_line_warnings, open_key
from encdl.commands.many_files import QUIET_S, Failures, counted, exit_code, tell_of
from encdl.commands.reader_options import Choice, add_reader, reader_of
from encdl.files import container, stores
from encdl.files.folders import Left, Source, gather
from encdl.keys.planes import WeakPlanesWarning
from encdl.utils import atomic
from encdl.utils.errors import EncdlError, NoImageError, UsageError
from encdl.utils.lazy import without
from encdl.utils.messages import plain, progress, say, warn

if TYPE_CHECKING:
    from encdl.files.scan_files import Unit
    from encdl.files.scans import Opened
    from encdl.keys.functional import FunctionalKey
    from encdl.readers.answers import Answer, Classification, Segmentation
    from encdl.readers.functional_files import FunctionalPredictor
    from encdl.readers.predictor import Predictor
    from encdl.readers.two_party.files import TwoPartyPredictor

Progress = Callable[[float], object]
"""Is told what share more of a unit is done."""

MASKS = ("png", "nifti", "dicom")
OVERLAYS = ("ciphertext", "image")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "paths",
        type=file_or_address,
        nargs="+",
        metavar="FILE",
        help=".encdl files, or folders: all .encdl files below them, sorted by name",
    )
    key = add_key(parser)
    key.add_argument(
        "--functional-key",
        type=file_name,
        metavar="FKEY",
        help="instead of a key: what `encdl grant --reader` made for FILE and this reader, which shows the reader's "
        "first layer and nothing else; or a folder of them, NAME.fkey for NAME.encdl",
    )
    key.add_argument(
        "--keyserver",
        metavar="URL",
        help="instead of a key: ask this server (encdl keyserver) for the functional key of each FILE",
    )
    functional_keys.add_keyserver(parser)
    parser.add_argument(
        "--two-party",
        action="store_true",
        help="with --keyserver: compute the answer on shares together with it, so that nobody learns the image; needs "
        "the environment that `encdl two-party` makes, and a reader of view TwoParty",
    )
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument(
        "--reader",
        type=file_name,
        metavar="CKPT",
        help="checkpoint of a classifier or segmenter, trained on ciphertext with the key, or on plaintext; for a "
        "functional key, on view Functional",
    )
    predict_bundle.add_arguments(parser, network)
    parser.add_argument(
        "-o",
        "--output",
        **OUTPUT | {"type": file_or_address},
        help="classifier: CSV file with a row for each FILE (default: print it); segmenter: folder for the masks",
    )
    parser.add_argument("--force", **FORCE)
    parser.add_argument(
        "--masks",
        choices=MASKS,
        help="png (default for single images; grey level = class index), nifti (default for scans, and DICOM slices "
        "that say where they lie; on their own grid) or dicom (a segmentation object that refers to the instances)",
    )
    parser.add_argument(
        "--overlay",
        action=Choice,
        nargs="?",
        choices=OVERLAYS,
        const=OVERLAYS[0],
        help="also draw each mask over the encrypted image, as NAME.overlay.png, which shows no decrypted pixel; "
        "image: over the decrypted image; of scans the slices with most of a class",
    )
    add_reader(parser)


def run(args: argparse.Namespace) -> int:
    """Read every file; tell of those that cannot be read, and go on."""
    from encdl.files import file_names, scan_files  # noqa: PLC0415

    if args.bundle is not None:
        return predict_bundle.run(args)
    left: list[Left] = []
    sources = gather(args.paths, file_names.is_encrypted, f"{container.SUFFIX} file", left)
    keys = functional_keys.keys_of(args, sources)
    functional_keys.check_two_party(args)
    opener: Any = None if keys is not None else open_key(args.key)
    files = args.key.files if keys is None else keys.files
    inputs = [*files, args.reader, *(source.path for source in sources)]
    if args.output is not None:
        atomic.different_files(args.output, *inputs)
    with one_line_warnings(ignore=WeakPlanesWarning):  # too late to tell: the files are what they are
        # MONAI imports whatever it finds; that takes longer than an image does.
        with without("mlflow", "matplotlib.pyplot", "pandas"):
            if args.two_party:
                shared, together = functional_keys.two_party_reader(args)
                units = [scan_files.single(source) for source in sources]
                reading = _Reading(units, shared, lambda unit, _: together(unit.path))
            elif keys is None:
                reading = _keyed(args, sources, opener)
            else:
                keyless = functional_keys.load_reader(args)
                function = keyless.function.id

                def key_of(path: Path, head: bytes) -> FunctionalKey:
                    return keys.of(path, head, function)

                def read(unit: Unit, progress: Progress) -> Answer | Segmentation | Classification:
                    if unit.stack:
                        return keyless.read_scan([source.path for source in unit.sources], key_of, progress)
                    return keyless.read(unit.path, partial(key_of, unit.path))

                units = scan_files.units_without_key(_looked_at(sources), keyless.reads_scans)
                reading = _Reading(units, keyless, read)
        if reading.predictor.per_pixel:
            _write_masks(args, reading, inputs)
        else:
            _write_table(args, reading)
    return reading.end(tell_of(left, "NOT read"))


def _keyed(args: argparse.Namespace, sources: Sequence[Source], opener: Any) -> _Reading:
    """Reading with a key: of a reader of scans, files that make one at once."""
    from encdl.files import scan_files, series_tags  # noqa: PLC0415

    predictor = reader_of(args, args.reader)
    opened = partial(predictor.opened, opener=opener)

    def read(unit: Unit, progress: Progress) -> Answer | Segmentation | Classification:
        turned = unit.scan is not None and predictor.turns_slices
        alone = unit.single and not turned and args.overlay != "image"
        volume = None if alone else unit.load(opened)
        known = unit.scan if volume is None else volume
        if known is not None and (known.known or not unit.single):  # of an image without place, a grid says nothing
            for problem in known.problems:
                warn(f"{unit.path}: {problem}")
        return predictor.read(unit.path, opener) if volume is None else predictor.read_volume(volume, progress)

    units = [scan_files.single(source) for source in sources]
    if predictor.reads_scans:
        units = list(scan_files.find_units(_looked_at(sources), opened, series_tags.name_of(opener)))
    return _Reading(units, predictor, read, opened)


def _looked_at(sources: Sequence[Source]) -> Iterable[Source]:
    """The files, with a bar for those whose headers are read."""
    from tqdm import tqdm  # noqa: PLC0415

    bar: Iterable[Source] = tqdm(
        sources, "headers", unit="file", delay=QUIET_S, leave=False, disable=None, file=sys.stderr
    )
    return bar


class _Reading:
    """Goes through the units with a progress bar, tells of each that cannot be read, and counts them."""

    def __init__(
        self,
        units: Sequence[Unit],
        predictor: Predictor | FunctionalPredictor | TwoPartyPredictor,
        read: Callable[[Unit, Progress], Any],
        opened: Opened | None = None,
    ) -> None:
        self.units, self.predictor, self._answer, self.opened = units, predictor, read, opened
        self._failures, self.read, self.answered, self._no_images = Failures(), 0, 0, 0

    def __iter__(self) -> Iterator[tuple[Unit, Any]]:
        from tqdm import tqdm  # noqa: PLC0415

        total = sum(len(unit.sources) for unit in self.units)
        # No bar where nobody watches; `disable=None` asks whether stderr is a terminal.
        with tqdm(total=total, unit="file", delay=QUIET_S, leave=False, disable=None, file=sys.stderr) as bar:
            bar.bar_format = "{l_bar}{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}]"
            for done, unit in enumerate(self.units):
                files = len(unit.sources)
                step = partial(_advance, bar, files)
                try:
                    answer = self._answer(unit, step)
                except NoImageError as error:
                    self._no_images += 1
                    if len(self.units) == 1:  # it was asked for
                        self._failures.tell(unit.path, error)
                    continue
                except EncdlError as error:
                    self._failures.tell(unit.path, error)
                    continue
                finally:
                    bar.n = sum(len(each.sources) for each in self.units[: done + 1])
                    bar.refresh()
                self.read += files
                self.answered += 1
                yield unit, answer

    def end(self, undone: int) -> int:
        """Sum up on stderr; the exit code, of a run that left so many files alone."""
        self._failures.tell_rest()
        failed = self._failures.count
        if failed and len(self.units) > 1:
            what = "files" if all(len(unit.sources) == 1 for unit in self.units) else "scans and images"
            progress(f"encdl: {failed} of {len(self.units)} {what} could not be read")
        if self._no_images and len(self.units) > 1:
            progress(f"encdl: {counted(self._no_images)} left alone, no image{'s' * (self._no_images > 1)}")
        return exit_code(failed, len(self.units), undone or not self.read)


def _advance(bar: Any, files: int, share: float) -> None:
    bar.update(share * files)


def _write_table(args: argparse.Namespace, reading: _Reading) -> None:
    """A classifier's answers as one CSV."""
    from encdl.readers import answer_files  # noqa: PLC0415

    if args.masks or args.overlay:
        raise UsageError(f"{args.reader}: is a classifier: --masks and --overlay are for segmenters")
    with stores.stored(args.output, args.force, args.paths) as output:
        if output is not None:
            atomic.check_output(output, args.force)
        table = answer_files.table(reading.predictor.classes, reading)
        if output is None or not table:
            sys.stdout.write(plain(table))
            return
        content = table.encode("utf-8", "backslashreplace")  # names may hold bytes of any kind
        atomic.write_bytes(output, content, force=args.force)
    say(f"{stores.address_of(args.output) or args.output}: {counted(reading.read)}")


def _write_masks(args: argparse.Namespace, reading: _Reading, inputs: Sequence[Path]) -> None:
    """A segmenter's answers as a mask a file, each written whole as soon as it is known."""
    from encdl.files.scans import UNKNOWN_GRID  # noqa: PLC0415
    from encdl.readers.answer_files import MaskFolder  # noqa: PLC0415

    if args.output is None:
        raise UsageError(f"{args.reader}: is a segmenter: give a folder for its masks with --output")
    stores.on_disk(args.output, "masks go to a folder")
    classes = reading.predictor.classes
    if args.overlay == "image" and reading.opened is None:
        raise UsageError("--overlay image needs a key that opens the files")
    masks = MaskFolder(args.output, classes, args.masks, args.overlay, args.force, reading.opened)
    masks.check(reading.units, inputs)
    nowhere = False
    for unit, answer in reading:
        masks.write(unit, answer)
        volume = getattr(answer, "volume", None)
        nowhere |= reading.opened is None and volume is not None and volume.affine is UNKNOWN_GRID
    masks.finish()
    if nowhere:
        warn(
            "where the scans lie is sealed, and no key was given: their masks have voxels of 1 mm at no place in the "
            "patient; whoever has the key puts the mask of a file there with encdl decrypt --mask"
        )
    if reading.read:
        levels = ", ".join(f"{index} {name}" for index, name in enumerate(classes))
        several = "1 scan" if reading.answered == 1 else f"{reading.answered} scans and images"
        scans = f" in {several}" if reading.answered != reading.read else ""
        say(f"{args.output}: masks of {counted(reading.read)}{scans}, with the levels {levels}")
