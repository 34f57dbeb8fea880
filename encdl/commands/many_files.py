"""Many files in one run: finding them, going through them, and telling how it went."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from encdl.files import folders, stores
from encdl.files.folders import Done, Left, Progress, Source, Work
from encdl.utils import compiled
from encdl.utils.errors import UsageError, explain, without_secrets
from encdl.utils.messages import plain, progress, warn

EXIT_SOME_FAILED = 1
EXIT_ALL_FAILED = 2
NAMED = 5
"""Files that are left alone for one reason are named up to this number, and then counted."""
NAMED_FAILED = 20
"""The same of files that fail."""
QUIET_S = 2.0
"""A progress bar appears after this many seconds."""


def is_batch(paths: Sequence[Path]) -> bool:
    """Whether the user asked for more than one file: then one that fails does not stop the others."""
    return len(paths) > 1 or paths[0].is_dir() or stores.is_folder(paths[0])


def find(
    paths: Sequence[Path], wanted: Callable[[Path], bool], what: str, left: list[Left] | None = None
) -> list[Source]:
    """The files that `folders.gather` finds, each to be written below one output folder.

    Raises:
        UsageError: a folder holds none, or two files would get one name below the output folder.
    """
    found = folders.gather(paths, wanted, what, left)
    folders.check_names(found)
    return found


def tell_of(left: Sequence[Left], what: str) -> int:
    """Name what was left out of folders, one line a reason; gives how many of them may have been meant.

    Args:
        left: what `folders.gather` left out.
        what: was not done to it, such as "NOT encrypted".
    """
    undone = [one for one in left if one.undone]
    for why in dict.fromkeys(one.why for one in undone):
        paths = [str(one.path) for one in undone if one.why == why]
        more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
        warn(f"left alone, {what}, {why}: {', '.join(paths[:NAMED])}{more}")
    return len(undone)


def check_folder(folder: Path | None) -> Path:
    """The folder for the results of many files; `UsageError` if none was given, or it cannot be one."""
    if folder is None:
        raise UsageError("several files need a folder for the results: give its name with --output")
    return folders.check_folder(folder)


class Failures:
    """Tells of the first file that fails for a reason, and in the end of all others that failed for the same one.

    Attributes:
        count: how many have failed.
    """

    def __init__(self) -> None:
        self.count = 0
        self._paths: dict[str, list[tuple[str, str]]] = {}

    def tell(self, path: Path, error: Exception) -> None:
        """Tell of one, if its reason is new."""
        from tqdm import tqdm  # noqa: PLC0415

        self.count += 1
        told = line(path, error)
        # The file's own name goes, alone or as part of its output's; a DICOM file may be called 1, as a word may begin.
        name = rf"{re.escape(path.name)}(?![^\s:.])[^\s:]*"
        reason = re.sub(rf"(?<!\S)(?:\S*/{name}:?|{name}:)\s?", "", told.removeprefix(str(path)))
        alike = self._paths.setdefault(reason, [])
        alike.append((str(path), told))
        if len(alike) == 1:
            tqdm.write(plain(f"encdl: error: {told}"), file=sys.stderr)

    def tell_rest(self) -> None:
        """Tell of the others."""
        for reason, (_, *rest) in self._paths.items():
            if len(rest) == 1:
                progress(f"encdl: error: {rest[0][1]}")
            elif rest:
                more = f" and {len(rest) - NAMED_FAILED:,} more" if len(rest) > NAMED_FAILED else ""
                names = ", ".join(name for name, _ in rest[:NAMED_FAILED])
                progress(f"encdl: error: {len(rest):,} more files{reason} ({names}{more})")


class Batch:
    """Goes through files with a progress bar, tells of each that fails, and sums up.

    Args:
        sources: the files.
        jobs: how many to work on at the same time.
        verb: what was done to them, for the summary: "encrypted".
        left: what else lies in the folders.
        there: what those files are that were as they shall be.
    """

    def __init__(
        self, sources: Sequence[Source], jobs: int, verb: str, left: Sequence[Left] = (), there: str = "finished before"
    ) -> None:
        self._sources, self._jobs, self._verb, self._there = sources, min(jobs, len(sources)), verb, there
        self._left = left
        self._results: list[Done] = []
        self._failures = Failures()

    def run(self, work: Work) -> int:
        """Work on every file; the exit code."""
        from tqdm import tqdm  # noqa: PLC0415

        _share_cores(self._jobs)
        undone = tell_of(self._left, f"NOT {self._verb}")
        started = time.monotonic()
        # No bar where nobody watches; `disable=None` asks whether stderr is a terminal.
        with tqdm(
            total=len(self._sources), unit="file", delay=QUIET_S, leave=False, disable=None, file=sys.stderr
        ) as bar:
            for source, result in folders.each(self._sources, work, self._jobs):
                bar.update()
                if isinstance(result, Done):
                    self._results.append(result)
                    if result.note:
                        tqdm.write(plain(f"encdl: warning: {result.note}"), file=sys.stderr)
                else:
                    self._failures.tell(source.path, result)
        self._failures.tell_rest()
        progress(f"encdl: {self._summary(time.monotonic() - started, undone)}")
        return exit_code(self._failures.count, len(self._sources), undone)

    def _summary(self, seconds: float, undone: int) -> str:
        done = [result for result in self._results if not result.there]
        there = len(self._results) - len(done)
        size = sum(result.size for result in done)
        parts = [f"{counted(len(done))} {self._verb}"]
        if there:
            parts.append(f"{there} {self._there}")
        carried = sum(result.carried for result in self._results)
        if carried:
            parts.append(f"{carried} of them no image, sealed as {'they are' if carried > 1 else 'it is'}")
        if self._failures.count:
            parts.append(f"{self._failures.count} failed")
        if undone:
            parts.append(f"{undone} left alone")
        if others := len(self._left) - undone:
            parts.append(f"{others} passed over")
        if not done:
            return f"{', '.join(parts)} ({seconds:.1f} s)"
        rate = f", {_amount(size / seconds)}/s" if seconds > 0 else ""
        return f"{', '.join(parts)} ({_amount(size)} in {seconds:.1f} s{rate})"


def _share_cores(jobs: int) -> None:
    """Threads of one network that wait for those of another make all of them slow."""
    if jobs > 1:
        threads = max(1, compiled.threads() // jobs)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # for PyTorch, if it is loaded later
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(threads)


@contextlib.contextmanager
def single_progress(total: int) -> Iterator[Progress]:
    """A progress bar over the bytes of one array."""
    from tqdm import tqdm  # noqa: PLC0415

    with tqdm(total=total, unit="B", unit_scale=True, delay=QUIET_S, leave=False, disable=None, file=sys.stderr) as bar:
        yield bar.update


def line(path: Path, error: Exception) -> str:
    """The message about a file that failed: its name, and what is wrong with it."""
    message = explain(error)
    message = message if message.startswith(str(path)) else f"{path}: {message}"
    return without_secrets(" ".join(message.split()))


def exit_code(failed: int, count: int, undone: int = 0) -> int:
    """Of a run over some files: 0, 1 if some failed or something was left alone (`undone`), 2 if all failed."""
    if not failed:
        return EXIT_SOME_FAILED if undone else 0
    return EXIT_SOME_FAILED if failed < count else EXIT_ALL_FAILED


def counted(count: int) -> str:
    """The number of files, in words."""
    return f"{count} file{'s' * (count != 1)}"


def _amount(count: float) -> str:
    """A number of bytes in words; small ones not as 0.0 MB."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
