"""Answers of readers as files: a CSV table of classes, or masks and their measures."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from encdl.files import dicom_seg, folders, images, label_masks, scans
from encdl.files.scan_files import Unit
from encdl.files.scans import Opened, Scan, Volume
from encdl.readers.answers import Answer, Classification, Segmentation
from encdl.utils import atomic
from encdl.utils.errors import UsageError

ENDINGS = {"png": ".mask.png", "nifti": ".mask.nii.gz", "dicom": ".seg.dcm"}
OVERLAY = ".overlay.png"
MEASURES = "measures.csv"


def table(classes: Sequence[str], answers: Iterable[tuple[Unit, Answer | Classification]]) -> str:
    """A classifier's answers as CSV with a row a file; "" if there are none.

    A scan has a row a slice, with the slice's number, and before them one of the mean of their probabilities.
    """
    rows: list[list[object]] = []
    scans_too = False
    for unit, answer in answers:
        of_slices = isinstance(answer, Classification)
        scans_too = scans_too or of_slices
        rows.append(_row(str(unit.path), "all" if of_slices else "", classes, answer.probabilities))
        if isinstance(answer, Classification):
            parts = zip(answer.files, answer.numbers, answer.logits.softmax(1).numpy(), strict=True)
            for index, (path, number, likely) in enumerate(parts):
                rows.append(_row(str(path), str((index if number < 0 else number) + 1), classes, likely))
    head = ["file", "slice", "predicted", *(f"probability of {name}" for name in classes)]
    return _csv(head, rows) if scans_too else _csv(head[:1] + head[2:], [row[:1] + row[2:] for row in rows])


def _row(path: str, number: str, classes: Sequence[str], probabilities: Any) -> list[object]:
    return [path, number, classes[int(probabilities.argmax())], *(f"{value:.6f}" for value in probabilities)]


def _csv(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    stream = io.StringIO()
    lines = csv.writer(stream, lineterminator="\n")
    lines.writerows([names, *rows] if rows else [])
    return stream.getvalue()


@dataclass
class MaskFolder:
    """The folder of a segmenter's masks; it is made with the first of them.

    Attributes:
        folder: the folder, in which a file keeps its place.
        classes: names of the classes.
        masks: "png" (grey level = class index), "nifti" or "dicom"; by default PNG of single images, NIfTI of scans and
            of DICOM slices that say where they lie.
        overlay: also draw each mask over the "ciphertext" (of a scan over nothing), or over the "image" itself; of a
            scan on the slices with most of a class.
        force: replace files that exist.
        opened: opens a file, for DICOM masks.
    """

    folder: Path
    classes: Sequence[str]
    masks: str | None = None
    overlay: str | None = None
    force: bool = False
    opened: Opened | None = None
    _measures: list[list[object]] = field(default_factory=list, repr=False)

    def check(self, units: Sequence[Unit], inputs: Iterable[Path]) -> None:
        """Say early what could not be written.

        Args:
            units: what is read.
            inputs: none of these may be replaced.

        Raises:
            UsageError: the folder cannot be one, or two masks would get one name, or one that of an input; or a mask
                cannot be of this kind.
            OutputExistsError: a mask exists already.
        """
        folders.check_folder(self.folder, "masks go")
        if self.masks == "dicom":
            dicom_seg.check_installed()
        taken: dict[Path, Unit] = {}
        read = {path.resolve() for path in inputs}
        for unit in units:
            mask, *more = self._targets(unit)
            other = taken.setdefault(mask, unit)
            if other is not unit:
                raise UsageError(
                    f"{other.path} and {unit.path}: would both become {mask}: read them into two folders, or give the "
                    "folder above them"
                )
            for target in (mask, *more):
                if target.resolve() in read:
                    raise UsageError(f"{target}: the mask would replace a file that is read: give another folder")
                if target.parent.is_dir():
                    atomic.check_output(target, self.force)

    def write(self, unit: Unit, answer: Answer | Segmentation) -> None:
        """Write the mask of one unit, and its overlays, each whole or not at all; keep its measures for `finish`."""
        target = next(self._targets(unit))
        if isinstance(answer, Segmentation):
            self._write_scan(unit, answer, target)
            return
        self._write(target, unit, answer.best[None])
        if unit.scan is not None:
            self._measure(unit, answer.best[None], unit.scan)
        for path in [*self._targets(unit)][1:]:
            drawn = label_masks.overlay(answer.best, label_masks.faint(answer.ciphertext), self.classes)
            images.write(path, drawn, force=self.force)

    def finish(self) -> None:
        """Write the measures of all scans as CSV, if there are any."""
        names = ["scan", "class", "voxels", "millilitres", "surface mm2", "slices", "largest slice", "area mm2", "file"]
        if self._measures:
            content = _csv(names, self._measures).encode("utf-8", "backslashreplace")
            atomic.write_bytes(self.folder / MEASURES, content, force=self.force)

    def _write_scan(self, unit: Unit, answer: Segmentation, target: Path) -> None:
        mask, volume = answer.mask, answer.volume
        self._write(target, unit, mask, volume)
        largest = label_masks.largest_slices(mask)
        drawn = {0: OVERLAY} if unit.single else {number: f".{number + 1:04}{OVERLAY}" for number in largest.values()}
        for number, ending in drawn.items() if self.overlay else ():
            below = answer.levels[number] if self.overlay == "image" else np.full_like(mask[number], 255)
            path = self.folder / unit.name.with_name(unit.name.name + ending)
            images.write(path, label_masks.overlay(mask[number], below, self.classes), force=self.force)
        self._measure(unit, mask, volume)

    def _measure(self, unit: Unit, mask: Any, grid: Volume | Scan) -> None:
        """Keep a row of each class; of one slice its area, and a volume only if the file tells how thick it is."""
        if not grid.known:
            return
        thick = not unit.single or unit.scan is None or unit.scan.slices[0].thickness > 0
        for index, largest in label_masks.largest_slices(mask).items():
            inside = mask == index
            name = self.classes[index] if index < len(self.classes) else str(index)
            size = f"{int(inside.sum()) * grid.voxel_mm3 / 1000:.3f}" if thick else ""
            surface = "" if unit.single else f"{label_masks.surface_mm2(inside, grid.spacing):.1f}"
            area = f"{int(inside[largest].sum()) * grid.pixel_mm2:.1f}"
            path = grid.files[largest]
            row = [int(inside.sum()), size, surface, int(inside.any(axis=(1, 2)).sum()), largest + 1, area]
            self._measures.append([unit.name, name, *row, "" if path is None else path.name])

    def _write(self, target: Path, unit: Unit, mask: Any, volume: Volume | None = None) -> None:
        kind = self._kind(unit)
        content = b""
        if kind == "nifti":
            grid = volume or unit.scan
            affine = scans.UNKNOWN_GRID if grid is None else grid.affine
            if label_masks.is_sheared(affine):
                warnings.warn(
                    f"{target}: the slices are tilted, and so is the mask's grid: programs built on ITK "
                    "refuse such NIfTI files; --masks dicom makes DICOM SEG",
                    stacklevel=2,
                )
            content = label_masks.nifti_bytes(mask, affine)
        elif kind == "dicom":
            present = mask if volume is None else mask[volume.present]
            content = dicom_seg.seg_bytes(present, self._datasets(unit), self.classes)
        target.parent.mkdir(parents=True, exist_ok=True)
        if kind == "png":
            images.write(target, mask[0], force=self.force)
        else:
            atomic.write_bytes(target, content, force=self.force)

    def _datasets(self, unit: Unit) -> list[Any]:
        assert self.opened is not None
        found = []
        for source in unit.sources:
            with self.opened(source.path) as document:
                found.append(scans.dataset_of(document))
        return found

    def _kind(self, unit: Unit) -> str:
        placed = unit.scan is not None and unit.scan.known
        kind = self.masks or ("nifti" if placed or not unit.single else "png")
        if kind == "png" and not unit.single:
            raise UsageError(
                f"{unit.path}: is a scan of several slices: its mask is no PNG, use --masks nifti or dicom"
            )
        if kind == "dicom" and unit.scan is None:
            raise UsageError(f"{unit.path}: is no DICOM: its mask cannot refer to instances, use --masks nifti")
        return kind

    def _targets(self, unit: Unit) -> Iterator[Path]:
        bare = self.folder / unit.name
        endings = [ENDINGS[self._kind(unit)], *([OVERLAY] if self.overlay and unit.single else [])]
        for ending in endings:
            yield bare.with_name(bare.name + ending)
