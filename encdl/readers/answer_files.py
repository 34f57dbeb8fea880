"""Answers of readers as files: a CSV table of classes, or a mask for each file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from encdl.files import container, folders, images, label_masks
from encdl.files.folders import Source
from encdl.readers.predictor import Answer
from encdl.utils import atomic
from encdl.utils.errors import UsageError

FORMATS = {"png": ".mask.png", "nii": ".mask.nii.gz"}
OVERLAY = ".overlay.png"


def table(classes: Sequence[str], answers: Iterable[tuple[Source, Answer]]) -> str:
    """A classifier's answers as CSV with a row a file; "" if there are none."""
    rows = [
        [str(source.path), classes[int(answer.best)], *(f"{value:.6f}" for value in answer.probabilities)]
        for source, answer in answers
    ]
    stream = io.StringIO()
    lines = csv.writer(stream, lineterminator="\n")
    if rows:
        lines.writerow(["file", "predicted", *(f"probability of {name}" for name in classes)])
    lines.writerows(rows)
    return stream.getvalue()


@dataclass(frozen=True)
class MaskFolder:
    """The folder of a segmenter's masks; it is made with the first of them.

    Attributes:
        folder: the folder, in which a file keeps its place.
        file_format: "png" (grey level = class index) or "nii".
        overlay: also draw each mask over the ciphertext.
        force: replace files that exist.
    """

    folder: Path
    file_format: str = "png"
    overlay: bool = False
    force: bool = False

    def check(self, sources: Sequence[Source], inputs: Iterable[Path]) -> None:
        """Say early what could not be written.

        Args:
            sources: the files that are read.
            inputs: none of these may be replaced.

        Raises:
            UsageError: the folder cannot be one, or two masks would get one name, or one that of an input.
            OutputExistsError: a mask exists already.
        """
        folders.check_folder(self.folder, "masks go")
        taken: dict[Path, Path] = {}
        read = {path.resolve() for path in inputs}
        for source in sources:
            mask, *more = self._targets(source)
            other = taken.setdefault(mask, source.path)
            if other is not source.path:
                raise UsageError(
                    f"{other} and {source.path}: would both become {mask}: read them into two folders, or give the "
                    "folder above them"
                )
            for target in (mask, *more):
                if target.resolve() in read:
                    raise UsageError(f"{target}: the mask would replace a file that is read: give another folder")
                if target.parent.is_dir():
                    atomic.check_output(target, self.force)

    def write(self, source: Source, answer: Answer) -> None:
        """Write the mask of one file, and its overlay, each whole or not at all."""
        (mask, *more), best = self._targets(source), answer.best
        mask.parent.mkdir(parents=True, exist_ok=True)
        if self.file_format == "nii":
            atomic.write_bytes(mask, label_masks.nifti_bytes(best), force=self.force)
        else:
            images.write(mask, best, force=self.force)
        for target in more:
            images.write(target, label_masks.overlay(best, answer.ciphertext), force=self.force)

    def _targets(self, source: Source) -> Iterator[Path]:
        path = source.relative
        bare = self.folder / (path.with_suffix("") if path.suffix.lower() == container.SUFFIX else path)
        for ending in (FORMATS[self.file_format], *([OVERLAY] if self.overlay else [])):
            yield bare.with_name(bare.name + ending)
