"""Many files: finding them in folders, their places below an output folder, and working on some at a time."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from encdl.files import stores
from encdl.utils.errors import EncdlError, UsageError

Progress = Callable[[int], object]
"""Is told how many bytes of an array more are done."""

Report = Callable[[int], AbstractContextManager[Progress | None]]
"""Called with the bytes of an array before they are worked on; gives what is told of each step."""


@dataclass(frozen=True)
class Source:
    """A file to work on.

    Attributes:
        path: where it is.
        relative: its name within the folder that was given, or its bare name.
        taken: the places that inputs and outputs of this run have, and the input that each belongs to.
    """

    path: Path
    relative: Path
    taken: dict[Path, Path] = field(default_factory=dict, repr=False, compare=False)

    def claimed(self, output: Path) -> Path:
        """Return a place to write to, which no other input of the run can have from now on.

        Raises:
            UsageError: it is another input's, or what is made of one.
        """
        other = self.taken.setdefault(output.resolve(), self.path)
        if other != self.path:
            raise UsageError(
                f"{self.path}: its output {output} is that of {other}, or is that file: take another output folder"
            )
        return output


@dataclass(frozen=True)
class Done:
    """How the work on one file ended.

    Attributes:
        size: bytes of the array.
        there: whether the output was finished before.
        note: what the user must know about it, if anything.
        told: what was written, in a few words.
        carried: whether it is no image, and sealed as it is.
    """

    size: int
    there: bool = False
    note: str = ""
    told: str = ""
    carried: bool = False


OTHER = "of another kind"
"""Why a file was left out that was not asked for."""


@dataclass(frozen=True)
class Left:
    """A file of a folder that is left out, and why."""

    path: Path
    why: str

    @property
    def undone(self) -> bool:
        """Whether it might have been one that was asked for."""
        return self.why != OTHER


Work = Callable[[Source, Progress], Done]
"""Works on one file; calls the second argument with the number of bytes that are done meanwhile."""


def silent(total: int) -> AbstractContextManager[None]:
    """A `Report` to nobody."""
    return contextlib.nullcontext()


def to(progress: Progress) -> Report:
    """A `Report` of steps alone, whatever the total."""
    return lambda total: contextlib.nullcontext(progress)


def gather(
    paths: Sequence[Path], wanted: Callable[[Path], bool], what: str, left: list[Left] | None = None
) -> list[Source]:
    """The files that `paths` name, each once; of folders, those below them that are wanted, sorted by name.

    No symbolic link to a folder is followed, and none that leads out of the folder that was given.

    Args:
        paths: files and folders.
        wanted: tells which files of a folder are meant.
        what: they are called.
        left: takes all else that lies in the folders.

    Raises:
        UsageError: a folder holds none.
    """
    found: dict[Path, Source] = {}
    left = [] if left is None else left
    for path in paths:
        named = [Source(path, Path(path.name))]
        stored = stores.is_folder(path)
        inner = list((_stored if stored else inside)(path, wanted, left)) if stored or path.is_dir() else named
        if not inner:
            unread = [f"; {each.path}: {each.why}" for each in left if each.undone][:1]
            raise UsageError(f"{path}: there is no {what} in this folder or below it{''.join(unread)}")
        for source in sorted(inner, key=lambda source: source.path.is_symlink()):  # a file before links to it
            found.setdefault(source.path.resolve(), source)
    taken = {place: source.path for place, source in found.items()}
    return [replace(source, taken=taken) for source in found.values()]


def check_names(sources: Sequence[Source]) -> None:
    """Raise `UsageError` if two files would get one name below an output folder."""
    names: dict[Path, Path] = {}
    for source in sources:
        other = names.setdefault(source.relative, source.path)
        if other is not source.path:
            raise UsageError(
                f"{other} and {source.path}: would both become {source.relative} below the output folder: "
                "give the folder above them, or take two output folders"
            )


def inside(folder: Path, wanted: Callable[[Path], bool], left: list[Left]) -> Iterator[Source]:
    """The files in a folder and below that are wanted, sorted by name; `left` takes all else, and why it is left."""
    root = folder.resolve()

    def unreadable(error: OSError) -> None:
        left.append(Left(Path(os.fsdecode(error.filename)), f"cannot be listed ({error.strerror})"))

    for where, folders, names in os.walk(folder, onerror=unreadable):
        folders.sort()
        left += [Left(Path(where, name), "links to folders") for name in folders if Path(where, name).is_symlink()]
        for name in sorted(names):
            path = Path(where, name)
            if why := _why_not(path, root):
                left.append(Left(path, why))
            elif wanted(path):
                yield Source(path, path.relative_to(folder))
            else:
                left.append(Left(path, OTHER))


def _stored(folder: Path, wanted: Callable[[Path], bool], left: list[Left]) -> Iterator[Source]:
    """As `inside`, of a folder in a store."""
    for name in stores.inside(folder):
        if isinstance(name, str):
            left.append(Left(Path(name), "names that no file can have"))
        elif wanted(name):
            yield Source(name, name.relative_to(folder))
        else:
            left.append(Left(name, OTHER))


def _why_not(path: Path, root: Path) -> str:
    """Why a file of a folder is left out; "" if it is not."""
    try:
        status = path.stat()
    except OSError as error:
        return "links that lead nowhere" if path.is_symlink() else f"cannot be read ({error.strerror})"
    if not stat.S_ISREG(status.st_mode):
        return "no regular files"
    leads_out = path.is_symlink() and not path.resolve().is_relative_to(root)
    return "links that lead out of the folder" if leads_out else ""


def check_folder(folder: Path, what: str = "the results go") -> Path:
    """A folder for the results of many files; it is made with the first of them.

    Raises:
        UsageError: it is a file, or the folder that it should go into is missing; of a store, the bucket.
    """
    if stores.address_of(folder):
        stores.check_folder(folder)
        return folder
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file: {what} into a folder, give its name with --output")
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


class Conversion(Protocol):
    """A conversion of each file of a folder: `Encryption`, `Decryption` or `Rekeying`."""

    @property
    def what(self) -> str:
        """The files are called."""
        ...

    def wants(self, path: Path) -> bool:
        """Whether a file of the folder is meant."""
        ...

    def into(self, source: Source, folder: Path, *, force: bool = False, report: Report = silent) -> Done:
        """Write what becomes of one file below a folder, or find it finished there."""
        ...


def convert_folder(
    how: Conversion,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    force: bool = False,
    jobs: int = 1,
) -> dict[Path, Done | Exception]:
    """Convert every file in a folder and below; what an earlier run finished is left as it is.

    Args:
        how: what is done.
        source: the folder. Links that lead out of it are not followed.
        target: folder for the results, where a file keeps its place.
        force: replace results that exist.
        jobs: files to work on at the same time.

    Returns:
        How each file ended; an error of one does not stop the others. Links that were not followed, and folders that
        cannot be listed, are errors among them.

    Raises:
        UsageError: the folder holds no such file, two would get one name, or the target cannot be a folder.
    """
    left: list[Left] = []
    sources, folder = gather([Path(source)], how.wants, how.what, left), check_folder(Path(target))
    check_names(sources)
    done = each(sources, lambda one, step: how.into(one, folder, force=force, report=to(step)), jobs)
    undone = {one.path: UsageError(f"{one.path}: left out: {one.why}") for one in left if one.undone}
    return {one.path: outcome for one, outcome in done} | undone


def each(sources: Sequence[Source], work: Work, jobs: int = 1) -> Iterator[tuple[Source, Done | Exception]]:
    """Work on every file, some at a time; how each ended, a file's error among it.

    An error that is no file's, an interruption for one, ends the others within a step.
    """
    stop = threading.Event()

    def step(done: int) -> None:
        if stop.is_set():
            raise KeyboardInterrupt

    def one(source: Source) -> Done | Exception:
        try:
            return work(source, step)
        except (EncdlError, OSError, MemoryError) as error:
            return error

    if min(jobs, len(sources)) == 1:
        for source in sources:
            yield source, one(source)
        return
    waiting, running = iter(sources), dict[Future[Done | Exception], Source]()
    with ThreadPoolExecutor(min(jobs, len(sources))) as pool:
        try:
            while True:
                # A few ahead at the most: an interruption then has nothing to wait for.
                for _, source in zip(range(jobs - len(running)), waiting, strict=False):
                    running[pool.submit(one, source)] = source
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        finally:
            stop.set()
