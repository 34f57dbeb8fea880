"""Reading images that are larger than those a segmenter was trained on, window by window."""

from __future__ import annotations

import torch
from torch import Tensor

from encdl.readers.reader import Reader
from encdl.utils.errors import UsageError

WINDOWS_AT_ONCE = {2: 16, 3: 2}
"""Windows that make one batch, by the dimensions of an image: a matter of memory alone."""


def read_windows(
    reader: Reader, image: Tensor, mask: Tensor | None, window: tuple[int, ...], overlap: float = 0.25
) -> Tensor:
    """Logits of a segmenter over images of any size; overlapping windows are blended with Gaussian weights.

    The mask is that of the whole image, computed before anything is cut: a pixel's mask depends on its neighbours in
    the ciphertext, so that a window by itself would give another one at its rim.

    Args:
        reader: A reader with a backbone of logits for each pixel, in evaluation mode.
        image: uint8 (B, C, H, W), or (B, C, D, H, W): the ciphertext, or whatever the stem is made for.
        mask: `Cipher.field` of it, of the same shape; None for readers without a key.
        window: Height and width in pixels (of volumes: depth, height, width) that the reader was trained on. An
            image that is not larger is read whole.
        overlap: Share of a window that lies over the next one, 0 to below 1.

    Returns:
        (B, classes, H, W) or (B, classes, D, H, W).

    Raises:
        UsageError: The reader gives one row of logits an image, or window or overlap are out of range.
    """
    from monai.inferers import sliding_window_inference  # noqa: PLC0415

    if not reader.backbone.per_pixel:
        raise UsageError(f"{reader.backbone.title} gives no logits for each pixel: read images whole")
    if min(window) < 1 or not 0 <= overlap < 1:
        raise UsageError(f"a window needs a positive size and an overlap in [0, 1), not {window} and {overlap}")
    size = image.shape[2:]
    if all(side <= most for side, most in zip(size, window, strict=True)):
        whole: Tensor = reader(image, mask)
        return whole

    def read(cut: Tensor) -> Tensor:
        levels = cut.to(torch.uint8)
        logits: Tensor = reader(levels[:, : image.shape[1]], levels[:, image.shape[1] :] if keyed else None)
        return logits.float()

    keyed = mask is not None
    if mask is not None and mask.shape != image.shape:
        raise UsageError(f"the mask has the shape {tuple(mask.shape)}, the image {tuple(image.shape)}")
    both = image if mask is None else torch.cat([image, mask], dim=1)
    blended: Tensor = sliding_window_inference(
        both.float(),  # levels are exact in it, and MONAI blends in the type of what it cuts
        # Never larger than the image: MONAI would pad, and what lies outside would be read as grey.
        roi_size=tuple(min(side, most) for side, most in zip(size, window, strict=True)),
        sw_batch_size=WINDOWS_AT_ONCE[len(size)],
        predictor=read,
        overlap=overlap,
        mode="gaussian",
    )
    return blended
