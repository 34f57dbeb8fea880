"""Diffusion: one changed pixel changes about 255 of 256 pixels, while one damaged pixel spoils only 15.

The channels of an image are stacked to one matrix, which six passes run over, each a recurrence along lines

    d[i] = p[i] + S[d[i-1] XOR k[i]]   (mod 256),   d[-1] = 0

with a keyed permutation S of 0..255 and a keystream byte k[i] for every pixel, both new in every pass. S is
not linear, so a difference of 128, which addition alone only passes on, is scattered like any other.

A difference never dies in a stretch of equal input, as S is a bijection: it dies only where new differences
come in, one time in 256. Two passes along a line (to and fro) would so leave the pixels before the changed
one alone one time in 256. Hence the order along, across, along back, across back, along, along back, with
"along" the longer side: a single line of pixels sees four passes, and fails one time in 65536.

The inverse p[i] = d[i] - S[d[i-1] XOR k[i]] needs two pixels only and no recurrence: it runs in parallel,
and damage reaches 5 pixels along and 3 across.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encdl.ciphers.postprocess.base import PostProcess
from encdl.keys.derivation import ImageKeys
from encdl.keys.sequences import byte_sequence
from encdl.utils import compiled

REVISION = 1
"""Of the form of the function in diffusion.c."""

_LEVELS = 256
_PLACES = np.arange(_LEVELS, dtype=np.uint64)

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class _Pass:
    """A direction: along the longer side of the matrix or across, from the start or from the end."""

    along: bool
    backwards: bool


_PASSES = (
    _Pass(along=True, backwards=False),
    _Pass(along=False, backwards=False),
    _Pass(along=True, backwards=True),
    _Pass(along=False, backwards=True),
    _Pass(along=True, backwards=False),
    _Pass(along=True, backwards=True),
)


class Diffusion(PostProcess):
    """Six keyed passes that spread every pixel over its whole image; by compiled code where that was built."""

    name = "diffusion"
    spreads = True

    def _apply(self, ciphertext: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        return _run(ciphertext, keys, undo=False)

    def _undo(self, ciphertext: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        return _run(ciphertext, keys, undo=True)

    def _undo_lost(self, lost: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        for step in reversed(_PASSES):
            lines = _lines(lost, step)
            lost = _image(lines | _previous(lines), step, lost)
        return lost.contiguous()


def _run(ciphertext: Tensor, keys: Sequence[ImageKeys], undo: bool) -> Tensor:
    """All passes, or their inverses in the opposite order."""
    boxes, streams = _key_material(keys, ciphertext)
    if (library := _library()) is not None:
        return _in_place(library, ciphertext, boxes, streams, undo)
    one_pass = _gather if undo else _spread
    passes = list(zip(_PASSES, *_by_pass(boxes, streams, ciphertext), strict=True))
    for step, box, stream in reversed(passes) if undo else passes:
        lines = one_pass(_lines(ciphertext, step), box, _lines(stream, step))
        ciphertext = _image(lines, step, ciphertext)
    return ciphertext.contiguous()


def _key_material(keys: Sequence[ImageKeys], images: Tensor) -> tuple[Bytes, Bytes]:
    """S-boxes uint8 (B, passes, 256), and keystream uint8 (B, passes, C * H * W)."""
    head = len(_PASSES) * _LEVELS * 4
    drawn = byte_sequence("chacha20", [key.diffusion for key in keys], head + len(_PASSES) * images[0].numel())
    # The order of 256 random 32-bit words is a random permutation; a tie, one time in 10^5, goes by place.
    words = np.ascontiguousarray(drawn[:, :head]).view("<u4").reshape(len(keys), len(_PASSES), _LEVELS)
    boxes = np.sort(words.astype(np.uint64) * _LEVELS + _PLACES, axis=2).astype(np.uint8)
    return boxes, drawn[:, head:].reshape(len(keys), len(_PASSES), -1)


# By compiled code.


def _in_place(library: ctypes.CDLL, ciphertext: Tensor, boxes: Bytes, streams: Bytes, undo: bool) -> Tensor:
    """All passes over a copy, on the CPU: a pass is a long chain of small steps, of which a GPU makes little."""
    found = ciphertext.to("cpu", copy=True).contiguous()
    _, channels, height, width = found.shape
    rows = channels * height
    passes = np.array([((width >= rows) == step.along, step.backwards) for step in _PASSES], np.int32)
    for image, box, stream in zip(found, boxes, streams, strict=True):
        library.encdl_diffuse(
            ctypes.c_void_p(image.data_ptr()),
            *(ctypes.c_void_p(each.ctypes.data) for each in (box, stream, passes)),
            *(len(passes), ctypes.c_int64(rows), ctypes.c_int64(width), undo),
        )
    return found.to(ciphertext.device)


def _library() -> ctypes.CDLL | None:
    return compiled.library("encdl_diffusion_revision", REVISION)


# By PyTorch.


def _by_pass(boxes: Bytes, streams: Bytes, images: Tensor) -> tuple[Tensor, Tensor]:
    """S-boxes uint8 (passes, B * 256), and keystream uint8 (passes, B, C, H, W), where the images are."""
    box = torch.from_numpy(boxes.swapaxes(0, 1).reshape(len(_PASSES), -1))
    stream = torch.from_numpy(streams.swapaxes(0, 1).reshape(len(_PASSES), *images.shape))
    return box.to(images.device), stream.to(images.device)


def _lines(images: Tensor, step: _Pass) -> Tensor:
    """View (B, C, H, W) as (steps, B, lines), in the order in which the pass runs."""
    matrix = images.flatten(1, 2)
    wide = matrix.shape[2] >= matrix.shape[1]
    lines = matrix.permute(2, 0, 1) if wide == step.along else matrix.permute(1, 0, 2)
    return lines.flip(0) if step.backwards else lines.contiguous()


def _image(lines: Tensor, step: _Pass, like: Tensor) -> Tensor:
    """Undo `_lines`."""
    lines = lines.flip(0) if step.backwards else lines
    rows = like.shape[1] * like.shape[2]
    wide = like.shape[3] >= rows
    matrix = lines.permute(1, 2, 0) if wide == step.along else lines.permute(1, 0, 2)
    return matrix.reshape(like.shape)


def _previous(lines: Tensor) -> Tensor:
    """The previous line of each step of the recurrence; zero at the first."""
    return torch.cat([torch.zeros_like(lines[:1]), lines[:-1]])


def _places(stream: Tensor) -> Tensor:
    """The keystream as int32, image b raised by 256 b: XOR with a byte gives a place in the S-boxes."""
    rows = torch.arange(stream.shape[1], dtype=torch.int32, device=stream.device).unsqueeze(1) * _LEVELS
    return stream + rows


def _spread(lines: Tensor, box: Tensor, stream: Tensor) -> Tensor:
    """Run the recurrence over the first axis of uint8 (steps, B, lines)."""
    flat = lines.flatten(1)
    result = torch.empty_like(flat)
    previous = torch.zeros_like(flat[0])
    for pixels, place, out in zip(flat, _places(stream).flatten(1), result, strict=True):
        torch.add(pixels, box.index_select(0, previous ^ place), out=out)
        previous = out
    return result.view_as(lines)


def _gather(lines: Tensor, box: Tensor, stream: Tensor) -> Tensor:
    """Invert `_spread`, all steps at once."""
    places = _previous(lines) ^ _places(stream)
    return lines - box.index_select(0, places.flatten()).view_as(lines)
