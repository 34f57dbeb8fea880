"""`encdl predict`: what a trained network says about encrypted files, without decrypting them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdl.commands import functional_keys
from encdl.commands.common import add_output, add_reader, file_name, load_reader, one_line_warnings, open_key
from encdl.commands.key_options import add_key
from encdl.commands.many_files import QUIET_S, Failures, counted, exit_code, tell_of
from encdl.files import container
from encdl.files.folders import Left, Source, gather
from encdl.keys.planes import WeakPlanesWarning
from encdl.utils import atomic
from encdl.utils.errors import EncdlError, UsageError
from encdl.utils.lazy import without
from encdl.utils.messages import plain, progress, say

if TYPE_CHECKING:
    from encdl.readers.functional_files import FunctionalPredictor
    from encdl.readers.predictor import Answer, Predictor
    from encdl.readers.two_party.files import TwoPartyPredictor

FORMATS = ("png", "nii")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "paths",
        type=file_name,
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
    parser.add_argument(
        "--reader",
        type=file_name,
        required=True,
        metavar="CKPT",
        help="checkpoint of a classifier or segmenter, trained on ciphertext with the key, or on plaintext; for a "
        "functional key, on view Functional",
    )
    add_output(
        parser, "classifier: CSV file with a row for each FILE (default: print it); segmenter: folder for the masks"
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="of masks: png (default; grey level = class index) or nii (.nii.gz)"
    )
    parser.add_argument(
        "--overlay",
        action="store_true",
        help="also draw each mask over the encrypted image, as NAME.overlay.png; it shows no decrypted pixel",
    )
    add_reader(parser)


def run(args: argparse.Namespace) -> int:
    """Read every file; tell of those that cannot be read, and go on."""
    from encdl.files import file_names  # noqa: PLC0415

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
                reading = _Reading(sources, *functional_keys.two_party_reader(args))
            elif keys is None:
                keyed = load_reader(args, args.reader)
                reading = _Reading(sources, keyed, lambda path: keyed.read(path, opener))
            else:
                keyless = functional_keys.load_reader(args)
                reading = _Reading(
                    sources,
                    keyless,
                    lambda path: keyless.read(path, lambda head: keys.of(path, head, keyless.function.id)),
                )
        if reading.predictor.per_pixel:
            _write_masks(args, reading, inputs)
        else:
            _write_table(args, reading)
    return reading.end(tell_of(left, "NOT read"))


class _Reading:
    """Goes through the files with a progress bar, tells of each that cannot be read, and counts them."""

    def __init__(
        self,
        sources: Sequence[Source],
        predictor: Predictor | FunctionalPredictor | TwoPartyPredictor,
        read: Callable[[Path], Answer],
    ) -> None:
        self.sources, self.predictor, self._answer = sources, predictor, read
        self._failures, self.read = Failures(), 0

    def __iter__(self) -> Iterator[tuple[Source, Answer]]:
        from tqdm import tqdm  # noqa: PLC0415

        # No bar where nobody watches; `disable=None` asks whether stderr is a terminal.
        for source in tqdm(self.sources, unit="file", delay=QUIET_S, leave=False, disable=None, file=sys.stderr):
            try:
                answer = self._answer(source.path)
            except EncdlError as error:
                self._failures.tell(source.path, error)
                continue
            self.read += 1
            yield source, answer

    def end(self, undone: int) -> int:
        """Sum up on stderr; the exit code, of a run that left so many files alone."""
        self._failures.tell_rest()
        failed = self._failures.count
        if failed and len(self.sources) > 1:
            progress(f"encdl: {failed} of {len(self.sources)} files could not be read")
        return exit_code(failed, len(self.sources), undone)


def _write_table(args: argparse.Namespace, reading: _Reading) -> None:
    """A classifier's answers as one CSV."""
    from encdl.readers import answer_files  # noqa: PLC0415

    if args.format or args.overlay:
        raise UsageError(f"{args.reader}: is a classifier: --format and --overlay are for segmenters")
    if args.output is not None:
        atomic.check_output(args.output, args.force)
    table = answer_files.table(reading.predictor.classes, reading)
    if args.output is None or not table:
        sys.stdout.write(plain(table))
        return
    content = table.encode("utf-8", "backslashreplace")  # names may hold bytes of any kind
    atomic.write_bytes(args.output, content, force=args.force)
    say(f"{args.output}: {counted(reading.read)}")


def _write_masks(args: argparse.Namespace, reading: _Reading, inputs: Sequence[Path]) -> None:
    """A segmenter's answers as a mask a file, each written whole as soon as it is known."""
    from encdl.readers.answer_files import MaskFolder  # noqa: PLC0415

    if args.output is None:
        raise UsageError(f"{args.reader}: is a segmenter: give a folder for its masks with --output")
    masks = MaskFolder(args.output, args.format or "png", args.overlay, args.force)
    masks.check(reading.sources, inputs)
    for source, answer in reading:
        masks.write(source, answer)
    if reading.read:
        levels = ", ".join(f"{index} {name}" for index, name in enumerate(reading.predictor.classes))
        say(f"{args.output}: masks of {counted(reading.read)}, with the levels {levels}")
