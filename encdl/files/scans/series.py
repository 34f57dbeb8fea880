"""DICOM slices sorted into scans, by series, size and orientation, in order along their normal; defects are told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from encdl.files.scans.headers import Slice, Vector

SAME_MM = 0.01
"""Slices that are less apart lie at one place."""
MISSING = 1.5
"""A step of so many usual ones has a slice missing."""
UNEVEN = 0.05
"""Share of the usual step by which others may differ and not be told."""
TILT_DEGREES = 0.1
MOST_EMPTY = 2
"""A grid has at most so many times as many places as slices."""
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class OnGrid:
    """What lies on a grid of voxels: its measures in millimetres."""

    affine: Vector

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between slices, rows and columns."""
        slices, rows, columns = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return slices, rows, columns

    @property
    def voxel_mm3(self) -> float:
        """Of a voxel, of a sheared grid too."""
        return abs(float(np.linalg.det(self.affine[:3, :3])))

    @property
    def pixel_mm2(self) -> float:
        """Of a pixel of a slice."""
        return float(np.linalg.norm(np.cross(self.affine[:3, 1], self.affine[:3, 2])))


@dataclass(frozen=True)
class Scan(OnGrid):
    """Slices that make one volume.

    Attributes:
        series: SeriesInstanceUID; as secret as the header that it is of.
        slices: In order along the normal of their planes.
        places: The place of each in the grid, from 0; where slices are missing, places are empty.
        affine: (4, 4), of (place, row, column) to millimetres to the right, front and head.
        known: Whether position and orientation come from the files.
        problems: What is wrong with it, a line each; they name files, and nothing that is sealed in them but lengths.
        part: Its number if the series falls into several scans, from 1; else 0.
    """

    series: str = field(repr=False)
    slices: tuple[Slice, ...]
    places: tuple[int, ...]
    affine: Vector
    known: bool = True
    problems: tuple[str, ...] = ()
    part: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, with those that are missing, rows and columns."""
        return (self.places[-1] + 1, *self.slices[0].shape)

    @property
    def files(self) -> tuple[Path, ...]:
        """Each file once, in order."""
        return tuple(dict.fromkeys(each.path for each in self.slices))


def sort_into_scans(slices: Sequence[Slice]) -> list[Scan]:
    """The scans that slices make, in the order of their first files.

    A series whose slices differ in size or orientation falls into several scans, and each says so.
    """
    series: dict[object, list[Slice]] = {}
    for each in slices:
        series.setdefault(each.series or each.path, []).append(each)
    found = []
    for members in series.values():
        parts = _alike(members)
        for number, part in enumerate(parts):
            told = [_of_part(parts, number)] if len(parts) > 1 else []
            found.append(_scan(part, told, number + 1 if len(parts) > 1 else 0))
    return found


def _alike(members: Sequence[Slice]) -> list[list[Slice]]:
    """Slices of one size and orientation together; the largest number first."""
    parts: list[list[Slice]] = []
    for each in members:
        for part in parts:
            first = part[0]
            both = first.axes is not None and each.axes is not None
            same = np.allclose(first.axes, each.axes, atol=1e-3) if both else first.axes == each.axes  # type: ignore[arg-type]
            if same and first.shape == each.shape and np.allclose(first.spacing, each.spacing, rtol=1e-3):
                part.append(each)
                break
        else:
            parts.append([each])
    return sorted(parts, key=len, reverse=True)


def _of_part(parts: Sequence[Sequence[Slice]], number: int) -> str:
    shapes, axes = ({getattr(part[0], name) for part in parts} for name in ("shape", "axes"))
    what = " and ".join(["orientations"] * (len(axes) > 1) + ["sizes"] * (len(shapes) > 1)) or "pixel spacings"
    counts = " + ".join(str(len(part)) for part in parts)
    return f"its slices have {len(parts)} {what} ({counts}): they are read as {len(parts)} scans, this is {number + 1}"


def _scan(members: Sequence[Slice], told: list[str], part: int) -> Scan:
    first = members[0]
    rows, columns = (length or 1.0 for length in first.spacing)
    known = first.axes is not None and all(each.position is not None for each in members)
    if not all(first.spacing):
        told.append("no pixel spacing: pixels are taken to be 1 mm wide")
    if not known:
        ordered = sorted(members, key=lambda each: (each.number, str(each.path), each.frame))
        gap = first.thickness or 1.0
        order = f": ordered by instance number, {gap:g} mm apart" if len(members) > 1 else ""
        told.append(f"no position or orientation{order}")
        affine = np.array([[0, 0, -columns, 0], [0, -rows, 0, 0], [gap, 0, 0, 0], [0, 0, 0, 1]], np.float64)
        return _finished(ordered, range(len(ordered)), affine, told, part, known=False)
    assert first.axes is not None
    along, down = np.array(first.axes[:3]), np.array(first.axes[3:])
    normal = np.cross(along, down)
    ordered, depths = _in_order(members, normal, told)
    places, step = _places(ordered, depths, first.thickness, told)
    start, end = (np.array(each.position, np.float64) for each in (ordered[0], ordered[-1]))
    between = (end - start) / places[-1] if places[-1] else normal * step
    line = between / np.linalg.norm(between)
    offsets = np.array([each.position for each in ordered], np.float64) - start
    drift = float(np.linalg.norm(offsets - np.outer(offsets @ line, line), axis=1).max())
    _tell_of_tilt(between, normal, drift, step, told)
    affine = np.eye(4)
    affine[:3] = np.column_stack([between, down * rows, along * columns, start])
    return _finished(ordered, places, _LPS_TO_RAS @ affine, told, part)


def _finished(
    ordered: Sequence[Slice], places: Sequence[int], affine: Vector, told: list[str], part: int, *, known: bool = True
) -> Scan:
    meaning = {(each.stored.slope, each.stored.intercept) for each in ordered}
    if len(meaning) > 1:
        told.append(f"{len(meaning)} pairs of rescale slope and intercept: each slice is read by its own")
    inverted = {each.stored.inverted for each in ordered}
    if len(inverted) > 1:
        told.append("MONOCHROME1 and MONOCHROME2 are mixed: each slice is read by its own")
    elif len(ordered) > 1 and inverted == {True}:
        told.append("MONOCHROME1: its smallest value is white, and readers get it turned about")
    return Scan(ordered[0].series, tuple(ordered), tuple(places), affine, known, tuple(told), part)


def _in_order(members: Sequence[Slice], normal: Vector, told: list[str]) -> tuple[list[Slice], list[float]]:
    """Slices by their depth along the normal; of several at one depth the first by number."""
    depth = {id(each): float(np.dot(normal, np.array(each.position))) for each in members}
    ordered: list[Slice] = []
    twice: list[Slice] = []
    for each in sorted(members, key=lambda each: (round(depth[id(each)], 3), each.number, str(each.path))):
        same = ordered and abs(depth[id(each)] - depth[id(ordered[-1])]) < SAME_MM
        (twice if same else ordered).append(each)
    if twice:
        more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
        told.append(f"several slices at one position: {twice[0].path.name}{more} left out")
    return ordered, [depth[id(each)] for each in ordered]


def _places(
    ordered: Sequence[Slice], depths: Sequence[float], thickness: float, told: list[str]
) -> tuple[list[int], float]:
    """The place of each slice in an even grid, and the usual step."""
    if len(ordered) == 1:
        return [0], thickness or 1.0
    steps = np.diff(depths)
    usual = float(np.median(steps))
    empty = [max(0, round(step / usual) - 1) if step > MISSING * usual else 0 for step in steps]
    if sum(empty) > (MOST_EMPTY - 1) * len(ordered):
        told.append(f"steps of {steps.min():.2f} to {steps.max():.2f} mm: no even grid, lengths along it are wrong")
        return list(range(len(ordered))), usual
    places = [0]
    for each, after, count in zip(ordered, ordered[1:], empty, strict=False):
        places.append(places[-1] + 1 + count)
        if count:
            told.append(
                f"{count} slice{'s' * (count > 1)} missing between {each.path.name} and {after.path.name}: left empty "
                "in the mask"
            )
    whole = np.array([step / (count + 1) for step, count in zip(steps, empty, strict=True)])
    if np.abs(whole - usual).max() > UNEVEN * usual:
        told.append(f"steps of {whole.min():.2f} to {whole.max():.2f} mm between slices: the grid has their mean")
    return places, usual


def _tell_of_tilt(between: Vector, normal: Vector, drift: float, step: float, told: list[str]) -> None:
    angle = math.degrees(math.acos(min(1.0, float(np.dot(between, normal)) / float(np.linalg.norm(between)))))
    if angle > TILT_DEGREES:
        told.append(f"slices are shifted by {angle:.1f} degrees (gantry tilt): the grid is sheared as they are")
    if drift > max(UNEVEN * step, SAME_MM) * 2:
        told.append(f"slices lie up to {drift:.2f} mm off an even line")
