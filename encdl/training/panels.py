"""Panels: rows of images side by side, with a histogram of the ciphertext, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from encdl.ciphers.base import Cipher
from encdl.ciphers.channel import stored
from encdl.ciphers.damage import DAMAGES
from encdl.files.label_masks import tinted
from encdl.metrics import classical_repair
from encdl.metrics.classical_repair import Kind

PLAIN, CIPHERTEXT = "plain", "ciphertext"
MASKS = ("truth", "prediction", "prediction, wrong key")
"""Columns of masks drawn over images: their closeness to the image says nothing."""
INCHES_PER_IMAGE = 2.0
SHOWN_DAMAGES: tuple[tuple[str, str, Kind, str], ...] = (
    ("salt_pepper_5pct", "5 % hit", "hits", "median"),
    ("quarter_lost", "a quarter lost", "losses", "biharmonic"),
)
"""Damages of the stored ciphertext in a panel of a cipher: name, words, kind, and the classical repair shown."""


def panel_png(columns: Mapping[str, Tensor], title: str = "", rows: int = 3, captions: Sequence[str] = ()) -> bytes:
    """Draw a panel.

    Args:
        columns: Name of a column to its images, uint8 (B, C, H, W), all of one B. Below each image stands
            its PSNR against the column `plain`, if any (but not below `MASKS`); the column `ciphertext` also gets
            a histogram.
        title: One line above everything.
        rows: At most this many images of a column.
        captions: What to write beside each row, a few short lines.

    Returns:
        A PNG file.

    Raises:
        ValueError: There is nothing to draw.
    """
    count = min([rows, *(len(images) for images in columns.values())]) if columns else 0
    if count == 0:
        raise ValueError("a panel needs at least one column with at least one image")
    width = len(columns) + (CIPHERTEXT in columns)
    size = (INCHES_PER_IMAGE * width, (INCHES_PER_IMAGE + 0.25) * count + 0.5)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    axes = figure.subplots(count, width, squeeze=False)
    figure.suptitle(title, fontsize=10)
    for row in range(count):
        images = {name: column[row].cpu().numpy() for name, column in columns.items()}
        for place, (name, image) in zip(axes[row], images.items(), strict=False):
            _draw_image(place, image, name if row == 0 else "")
            if PLAIN in images and name not in (PLAIN, *MASKS):
                place.set_xlabel(_closeness(image, images[PLAIN]), fontsize=8)
        if row < len(captions):
            axes[row, 0].set_ylabel(captions[row], fontsize=8)
        if CIPHERTEXT in images:
            _draw_histogram(axes[row, -1], images[CIPHERTEXT], "histogram of ciphertext" if row == 0 else "")
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def answers_png(confusion: np.ndarray, bins: np.ndarray, classes: Sequence[str]) -> bytes:
    """Draw what a classifier answers: how often each class is told as each, and how often it is right when how sure.

    Args:
        confusion: Whole numbers (classes, classes): images of each class (row) by what is told (column).
        bins: `encdl.metrics.calibration.Calibration.bins`.
        classes: Their names.

    Returns:
        A PNG file.
    """
    figure = Figure(figsize=(9, 5), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(confusion / np.maximum(confusion.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        dark = count > confusion[row].sum() / 2
        left.text(column, row, str(int(count)), ha="center", va="center", color="white" if dark else "black")
    left.set_xticks(range(len(classes)), classes, rotation=30, ha="right", fontsize=8)
    left.set_yticks(range(len(classes)), classes, fontsize=8)
    left.set(xlabel="told", ylabel="is", title=f"{int(confusion.sum())} test images")
    known = bins[bins[:, 0] > 0]
    right.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    sizes = 4 + 200 * known[:, 0] / max(known[:, 0].sum(), 1)
    right.scatter(known[:, 1], known[:, 2], s=sizes, clip_on=False, zorder=3)
    right.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right", title="reliability")
    for axes in (left, right):
        axes.set_anchor("N")
    right.set_aspect("equal")
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def cipher_columns(
    cipher: Cipher, image: Tensor, planes: Tensor, wrong: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Ciphertext, decryption and repair of a batch as columns of a panel: uint8 (B, C, H, W) by name.

    Args:
        cipher: In evaluation mode.
        image: uint8 (B, C, H, W).
        planes: The key planes, uint8 (B, C, H, W).
        wrong: Key planes of another key.
        generator: On the CPU, draws the damage of the stored ciphertexts: each of `SHOWN_DAMAGES`, decrypted, repaired
            in the classical way, and by the cipher.
    """
    ciphertext = cipher.encrypt(image, planes)
    columns = {PLAIN: image, CIPHERTEXT: ciphertext, "wrong key": cipher.decrypt(ciphertext, wrong)}
    for name, told, kind, classical in SHOWN_DAMAGES:
        damaged, lost = stored(DAMAGES[name], ciphertext, generator)
        decrypted = cipher.decrypt(damaged, planes)
        columns[told] = decrypted
        columns[f"{told}:\n{classical}"] = _classically(kind, classical, decrypted, lost)
        columns[f"{told}:\nrestored"] = cipher.restore(damaged, planes, lost)
    return columns


def _classically(kind: Kind, name: str, levels: Tensor, lost: Tensor) -> Tensor:
    """A classical repair without tuning, where it can run here: all uint8 (B, C, H, W), `lost` bool."""
    if name not in classical_repair.available(kind):
        name = "median"
    found = classical_repair.repaired(kind, name, levels.cpu().numpy(), lost.cpu().numpy())
    return torch.from_numpy(found).to(levels.device)


def overlaid(image: Tensor, mask: Tensor, strength: float = 0.6) -> Tensor:
    """A mask over an image turned grey, in the colours of `encdl.files.label_masks`; background is left clear.

    Args:
        image: uint8 (B, C, H, W).
        mask: Class of each pixel, (B, 1, H, W), any integer type.
        strength: Of the colour, 0 to 1.

    Returns:
        uint8 (B, 3, H, W).
    """
    drawn = tinted(image.float().mean(1).cpu().numpy(), mask[:, 0].cpu().numpy(), strength)
    return torch.from_numpy(drawn).movedim(-1, 1).to(image.device)


def _draw_image(place: Axes, image: np.ndarray, title: str) -> None:
    """One image (C, H, W): three channels as colour, otherwise the first channel as grey."""
    shown = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    place.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    place.set_title(title.replace("_", " "), fontsize=9)
    place.set_xticks([])
    place.set_yticks([])


def _draw_histogram(place: Axes, image: np.ndarray, title: str) -> None:
    """How often each of the 256 levels occurs, in per cent, and the line that a uniform ciphertext has."""
    share = 100 * np.bincount(image.ravel(), minlength=256) / image.size
    place.stairs(share, np.arange(257), fill=True, color="0.4")
    place.axhline(100 / 256, color="C3", linewidth=1)
    place.set_xlim(0, 256)
    place.set_ylim(0, max(0.8, 1.05 * float(share.max())))
    place.set_title(title, fontsize=9)
    place.tick_params(labelsize=7)
    place.set_xlabel("level (line: uniform)", fontsize=8)
    place.set_ylabel("% of pixels", fontsize=8)


def _closeness(image: np.ndarray, plain: np.ndarray) -> str:
    """PSNR in words: "exact" or "23.4 dB"; nothing for images of another size."""
    if image.shape != plain.shape:
        return ""
    error = float(np.mean((image.astype(np.float64) - plain) ** 2))
    return "exact" if error == 0 else f"{10 * np.log10(255**2 / error):.1f} dB"
