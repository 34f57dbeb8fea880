"""Many files in one run: finding them, going through them, and telling how it went."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encdl.commands.common import progress, warn
from encdl.utils.errors import EncdlError, UsageError, WrongKeyError, explain, without_secrets

EXIT_SOME_FAILED = 1
EXIT_ALL_FAILED = 2
TOLD = 5
"""Of the files that the key does not open, so many are told one by one."""
QUIET_S = 2.0
"""A progress bar appears after this many seconds."""


@dataclass(frozen=True)
class Source:
    """A file to work on.

    Attributes:
        path: where it is.
        relative: its name within the folder that the user gave, or its bare name.
    """

    path: Path
    relative: Path


@dataclass(frozen=True)
class Done:
    """How the work on one file ended.

    Attributes:
        size: bytes of the array.
        there: whether the output was finished before.
        note: what the user must know about it, if anything.
    """

    size: int
    there: bool = False
    note: str = ""


Work = Callable[[Source, Callable[[int], None]], Done]
"""Works on one file; calls the second argument with the number of bytes that are done meanwhile."""


def add_paths(parser: argparse.ArgumentParser, text: str) -> None:
    """Add `PATH...` and `--jobs`."""
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help=text)
    parser.add_argument(
        "--jobs",
        type=_at_least_one,
        default=1,
        metavar="N",
        help="files to work on at the same time (default: 1); each takes up to 1 GB of memory",
    )


def is_batch(paths: Sequence[Path]) -> bool:
    """Whether the user asked for more than one file: then one that fails does not stop the others."""
    return len(paths) > 1 or paths[0].is_dir()


def gather(
    paths: Sequence[Path], wanted: Callable[[Path], bool], what: str, left: list[Path] | None = None
) -> list[Source]:
    """The files that `paths` name, each once; of folders, those below them that are wanted, sorted by name.

    No symbolic link to a folder is followed, and none that leads out of the folder that the user gave.

    Args:
        paths: files and folders.
        wanted: tells which files of a folder are meant.
        what: they are called.
        left: takes all else that lies in the folders: other files, and links that are not followed or lead nowhere.

    Raises:
        UsageError: a folder holds none.
    """
    found: dict[Path, Source] = {}
    for path in paths:
        below = list(_below(path, wanted, left)) if path.is_dir() else [Source(path, Path(path.name))]
        if not below:
            raise UsageError(f"{path}: there is no {what} in this folder or below it")
        for source in sorted(below, key=lambda source: source.path.is_symlink()):  # a file before links to it
            found.setdefault(source.path.resolve(), source)
    return list(found.values())


def find(
    paths: Sequence[Path], wanted: Callable[[Path], bool], what: str, left: list[Path] | None = None
) -> list[Source]:
    """The files that `gather` finds, each to be written below one output folder.

    Raises:
        UsageError: as `gather`, or two files would get one name there.
    """
    found, names = gather(paths, wanted, what, left), dict[Path, Path]()
    for source in found:
        other = names.setdefault(source.relative, source.path)
        if other is not source.path:
            raise UsageError(
                f"{other} and {source.path}: would both become {source.relative} below the output folder: "
                "give the folder above them, or take two output folders"
            )
    return found


def _below(folder: Path, wanted: Callable[[Path], bool], left: list[Path] | None) -> Iterator[Source]:
    root, left = folder.resolve(), [] if left is None else left
    for where, folders, names in os.walk(folder):
        folders.sort()
        left += [Path(where, name) for name in folders if Path(where, name).is_symlink()]
        for name in sorted(names):
            path = Path(where, name)
            if not path.is_file() or not wanted(path):
                left.append(path)
            elif path.is_symlink() and not path.resolve().is_relative_to(root):
                warn(f"{path}: left alone: this symbolic link leads out of {folder}")
            else:
                yield Source(path, path.relative_to(folder))


def check_folder(folder: Path | None) -> Path:
    """The folder for the results of many files; it is made with the first of them.

    Raises:
        UsageError: none was given, it is a file, or the folder that it should go into is missing.
    """
    if folder is None:
        raise UsageError("several files need a folder for the results: give its name with --output")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file: the results go into a folder, give its name with --output")
    if not folder.absolute().parent.is_dir():
        raise UsageError(f"{folder}: there is no folder {folder.parent}: create it first")
    return folder


def below(folder: Path, relative: Path) -> Path:
    """A file below the output folder, its own folder made.

    Raises:
        UsageError: the name leads out of the folder: by itself, or through a symbolic link that is there.
    """
    target = folder / relative
    inside = ".." not in relative.parts and not relative.is_absolute()
    if not inside or not target.parent.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{target}: leads out of the output folder {folder}: remove the symbolic link")
    if target.is_symlink():
        raise UsageError(f"{target}: is a symbolic link: remove it, results are not written through it")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


class Failures:
    """Tells of each file that fails, and of those that the key does not open only of the first few.

    What is wrong with the others is in the file, and each has to be looked at; the key is wrong for all at once.

    Attributes:
        count: how many have failed.
    """

    def __init__(self) -> None:
        self.count = self._unopened = 0

    def tell(self, path: Path, error: Exception) -> None:
        """Tell of one."""
        from tqdm import tqdm  # noqa: PLC0415

        self.count += 1
        self._unopened += isinstance(error, WrongKeyError)
        if not isinstance(error, WrongKeyError) or self._unopened <= TOLD:
            tqdm.write(f"encdl: error: {line(path, error)}", file=sys.stderr)

    def tell_rest(self) -> None:
        """Tell how many are left untold."""
        if self._unopened > TOLD:
            rest = self._unopened - TOLD
            progress(
                f"encdl: error: {rest:,} more file{'s' * (rest != 1)} that the key does not open: `encdl inspect` "
                "tells whose they are"
            )


class Batch:
    """Goes through files with a progress bar, tells of each that fails, and sums up.

    Args:
        sources: the files.
        jobs: how many to work on at the same time.
        verb: what was done to them, for the summary: "encrypted".
    """

    def __init__(self, sources: Sequence[Source], jobs: int, verb: str) -> None:
        self._sources, self._jobs, self._verb = sources, min(jobs, len(sources)), verb
        self._stop = threading.Event()
        self._results: list[Done] = []
        self._failures = Failures()

    def run(self, work: Work) -> int:
        """Work on every file; the exit code: 0, 1 if some failed, 2 if all did."""
        from tqdm import tqdm  # noqa: PLC0415

        started = time.monotonic()
        # No bar where nobody watches; `disable=None` asks whether stderr is a terminal.
        with tqdm(
            total=len(self._sources), unit="file", delay=QUIET_S, leave=False, disable=None, file=sys.stderr
        ) as bar:
            for source, result in self._outcomes(work):
                bar.update()
                if isinstance(result, Done):
                    self._results.append(result)
                    if result.note:
                        tqdm.write(f"encdl: warning: {result.note}", file=sys.stderr)
                else:
                    self._failures.tell(source.path, result)
        self._failures.tell_rest()
        progress(f"encdl: {self._summary(time.monotonic() - started)}")
        if not self._failures.count:
            return 0
        return EXIT_SOME_FAILED if self._results else EXIT_ALL_FAILED

    def _outcomes(self, work: Work) -> Iterator[tuple[Source, Done | Exception]]:
        if self._jobs == 1:
            for source in self._sources:
                yield source, self._one(work, source)
            return
        waiting = iter(self._sources)
        running: dict[Future[Done | Exception], Source] = {}
        with ThreadPoolExecutor(self._jobs) as pool:
            try:
                while True:
                    # A few ahead at the most: an interruption then has nothing to wait for.
                    for source in _take(waiting, self._jobs - len(running)):
                        running[pool.submit(self._one, work, source)] = source
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        yield running.pop(future), future.result()
            finally:
                self._stop.set()

    def _one(self, work: Work, source: Source) -> Done | Exception:
        try:
            return work(source, self._tick)
        except (EncdlError, OSError, MemoryError) as error:
            return error

    def _tick(self, done: int) -> None:
        """Called from within the work: ends it when the user interrupted the run."""
        if self._stop.is_set():
            raise KeyboardInterrupt

    def _summary(self, seconds: float) -> str:
        done = [result for result in self._results if not result.there]
        there = len(self._results) - len(done)
        size = sum(result.size for result in done)
        parts = [f"{counted(len(done))} {self._verb}"]
        if there:
            parts.append(f"{there} finished before")
        if self._failures.count:
            parts.append(f"{self._failures.count} failed")
        if not done:
            return f"{', '.join(parts)} ({seconds:.1f} s)"
        rate = f", {_amount(size / seconds)}/s" if seconds > 0 else ""
        return f"{', '.join(parts)} ({_amount(size)} in {seconds:.1f} s{rate})"


def single_progress(total: int) -> Any:
    """A progress bar over the bytes of one array; use as a context manager, its `update` takes bytes."""
    from tqdm import tqdm  # noqa: PLC0415

    return tqdm(
        total=total, unit="B", unit_scale=True, delay=QUIET_S, leave=False, disable=None, file=sys.stderr
    )


def _take(items: Iterator[Source], count: int) -> Iterator[Source]:
    for _, item in zip(range(count), items, strict=False):
        yield item


def line(path: Path, error: Exception) -> str:
    """What to print of a file that failed: its name, and what is wrong with it."""
    message = explain(error)
    message = message if message.startswith(str(path)) else f"{path}: {message}"
    return without_secrets(" ".join(message.split()))


def counted(count: int) -> str:
    """The number of files, in words."""
    return f"{count} file{'s' * (count != 1)}"


def _amount(count: float) -> str:
    """A number of bytes in words; small ones not as 0.0 MB."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def _at_least_one(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("give 1 or more")
    return count
