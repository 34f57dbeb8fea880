"""Encrypted files put together to what a segmenter reads at once: a DICOM series, a NIfTI file, a single image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from encdl.files import container, scans
from encdl.files.container.sections import SERIES
from encdl.files.folders import Source
from encdl.files.scans import Opened, Scan, Slice, Volume
from encdl.files.series_tags import SeriesTag
from encdl.utils.errors import EncdlError

SERIES_PREFIX: Final = "series-"
"""Of the names of scans that several files make; their tags follow, and the number of a part."""


@dataclass(frozen=True)
class Unit:
    """Files that are read at once.

    Attributes:
        sources: Its files.
        name: Of its answer below the output folder, without an ending.
        scan: Its DICOM slices, if it is of them.
        stack: Whether its one file is a volume by itself.
    """

    sources: tuple[Source, ...]
    name: Path
    scan: Scan | None = None
    stack: bool = False

    @property
    def path(self) -> Path:
        """Its file, or the folder of its files, for messages."""
        return self.sources[0].path if len(self.sources) == 1 else self.sources[0].path.parent / self.name.name

    @property
    def single(self) -> bool:
        """Whether it is one image of one slice."""
        return not self.stack and (self.scan is None or len(self.scan.slices) == 1)

    def load(self, opened: Opened) -> Volume:
        """The volume; errors as those of its files."""
        if self.scan is not None:
            return scans.load_scan(self.scan, opened)
        with opened(self.sources[0].path) as document:
            return scans.load_volume(self.sources[0].path, document)


def single(source: Source) -> Unit:
    """A file by itself."""
    path = source.relative
    return Unit((source,), path.with_suffix("") if path.suffix.lower() == container.SUFFIX else path)


def find_units(sources: Iterable[Source], opened: Opened, tag: Callable[[str, Path], str]) -> Iterator[Unit]:
    """The units that files make, in the order of the files; one that cannot be opened is left to its reader to tell.

    Args:
        sources: The files.
        opened: Opens one; nothing but what stands before its pixels is looked at.
        tag: Makes a name of a SeriesInstanceUID and one of its files, which tells neither.
    """
    slices: list[Slice] = []
    of: dict[Path, Source] = {}
    for source in sources:
        try:
            with opened(source.path) as document:
                found = scans.slices_of(source.path, document)
                stack = not found and scans.is_volume(document)
        except EncdlError:
            found, stack = [], False
        if found:
            of[source.path] = source
            slices += found
        else:
            alone = single(source)
            yield Unit(alone.sources, alone.name, stack=stack)
    for scan in scans.sort_into_scans(slices):
        files = tuple(of[path] for path in scan.files)
        name = single(files[0]).name
        if len(scan.slices) > 1 and len(files) > 1:
            part = f"-{scan.part}" if scan.part else ""
            name = files[0].relative.parent / f"{SERIES_PREFIX}{tag(scan.series, files[0].path)}{part}"
        yield Unit(files, name, scan)


def units_without_key(sources: Iterable[Source], together: bool) -> list[Unit]:
    """As `find_units`, of what a host without a key sees; a file that cannot be opened is left to its reader to tell.

    Args:
        sources: The files.
        together: Put DICOM files of one slice together by the tags of their series, in the order of their numbers.
    """
    units: list[Unit] = []
    of: dict[tuple[object, ...], list[tuple[int, Source]]] = {}
    for source in sources:
        series, grid, volume = None, None, False
        try:
            with container.opened_without_key(source.path) as reader:
                volume = bool(reader.header.reading)
                grid, shown = reader.header.grid, reader.section(SERIES) if together else None
                series = None if shown is None else SeriesTag.from_bytes(shown)
        except EncdlError:
            pass
        alone = single(source)
        if series is None or grid is None or grid.slices > 1 or volume:
            units.append(replace(alone, stack=grid is not None and (grid.slices > 1 or volume)))
        else:
            place = source.relative.parent, series.tag, grid.height, grid.width, grid.channels
            of.setdefault(place, []).append((series.number, source))
    taken = Counter((parent, tag) for parent, tag, *_ in of)
    parts: Counter[object] = Counter()
    for (parent, tag, *_), numbered in of.items():
        files = tuple(source for _, source in sorted(numbered, key=lambda each: each[0]))
        parts[parent, tag] += 1
        part = f"-{parts[parent, tag]}" if taken[parent, tag] > 1 else ""
        name = Path(str(parent), f"{SERIES_PREFIX}{tag}{part}")
        units.append(single(files[0]) if len(files) == 1 else Unit(files, name, stack=True))
    return units
