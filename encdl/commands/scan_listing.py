"""`encdl inspect` of the scans in a folder: without a key their tags, with it their geometry and defects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from encdl.commands.many_files import Failures, counted
from encdl.files import container, scans
from encdl.files.container import ContainerReader
from encdl.files.container.sections import SERIES
from encdl.files.formats.base import Document
from encdl.files.series_tags import SeriesTag, name_of
from encdl.keys.key import AnyOpener
from encdl.utils.errors import ContainerError, EncdlError

_NAMED = 8


def without_key(paths: Sequence[Path]) -> Iterator[str]:
    """A line for each series that files show: for each tag that several have."""
    found: dict[str, list[int]] = {}
    for path in paths:
        with contextlib.suppress(ContainerError), container.opened_without_key(path) as reader:
            if (content := reader.section(SERIES)) is not None:
                series = SeriesTag.from_bytes(content)
                found.setdefault(series.tag, []).append(series.number)
    for tag, numbers in found.items():
        if len(numbers) == 1:  # files of any format have a tag
            continue
        there = set(numbers)
        lacking = [number for number in range(min(there), max(there) + 1) if number not in there]
        told = f"instance numbers {min(there)} to {max(there)}" if len(there) > 1 else f"instance number {min(there)}"
        if len(there) < len(numbers):
            told += f", {len(numbers) - len(there)} of them again (several orientations or images at one place?)"
        if 0 < len(lacking) < 10 * len(there):
            told += f", no {_listed(lacking)} (missing, or never there: the key tells)"
        yield f"series {tag}: {counted(len(numbers))}, {told}"


def _listed(numbers: Sequence[int]) -> str:
    """Ascending numbers, those that follow each other as a range."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    shown = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs[:_NAMED]]
    more = sum(map(len, runs[_NAMED:]))
    return ", ".join(shown) + (f" and {more} more" if more else "")


def with_key(paths: Sequence[Path], opener: AnyOpener, failures: Failures) -> Iterator[str]:
    """A line for each scan and volume and each of its defects; `failures` tells of files that cannot be read."""
    slices: list[scans.Slice] = []
    for path in paths:
        try:
            with container.opened(path, opener) as reader:
                document = _unread(reader)
            found = scans.slices_of(path, document)
        except EncdlError as error:
            failures.tell(path, error)
            continue
        slices += found
        if not found and scans.is_volume(document):
            yield f"volume {path}: {'x'.join(map(str, document.shape))} {document.dtype.name}, {document.format}"
    name = name_of(opener)
    for scan in scans.sort_into_scans(slices):
        first, count = scan.slices[0], len(scan.slices)
        sizes = " x ".join(f"{length:.2f}" for length in scan.spacing)
        part = f", part {scan.part}" if scan.part else ""
        names = " to ".join(dict.fromkeys((first.path.name, scan.slices[-1].path.name)))
        yield (
            f"series {name(scan.series, first.path)}{part}: {first.stored.modality or 'no modality'}, {count} "
            f"slice{'s' * (count != 1)} of {first.shape[0]}x{first.shape[1]}, {sizes} mm, {names}"
        )
        yield from (f"  {problem}" for problem in scan.problems)


def _unread(reader: ContainerReader) -> Document:
    """A file's document without its pixels."""
    header, metadata = reader.header, reader.metadata
    assert metadata is not None
    return Document(
        header.shape, np.dtype(header.dtype), header.layout, metadata.format, metadata.rest, lambda: iter(())
    )
