"""A lane's state from a few of its outputs: guess y, and all else follows.

The lanes are those of `encdl.keys.sequences`, in words of 16, 32 or 64 bits. Four outputs in a row and a guess of
the last y give x (from the output), the y before (from the step of y), x before that, and so on; three steps of x give
w three times, whose differences have to be one odd c. So 2^width guesses (times the values of a map's parameter) leave
the state, and with it everything the lane will give. At 64 bits that is too much to do here, so it is done at fewer.

Source: guess-and-determine attacks on stream ciphers made of words, P. Hawkes and G. G. Rose, SAC 2002, LNCS 2595, 37.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from encdl.keys.chaotic_maps import Chebyshev, Logistic
from encdl.keys.sequences import REVISION
from encdl.utils import compiled

Map = Callable[[Tensor], Tensor]
CHUNK: Final = {"cpu": 1 << 15, "cuda": 1 << 24}
"""Guesses at a time: what stays in a processor's cache, or fills a GPU."""

_DTYPES: Final = {16: torch.int16, 32: torch.int32, 64: torch.int64}
_GOLDEN: Final = 0x9E3779B97F4A7C15
_IN_C: Final = {kind.name: kind.code for kind in (Logistic, Chebyshev)}
_ROOM: Final = 64  # for guesses that fit four outputs: half a one is to be expected by chance


@dataclass(frozen=True)
class State:
    """A lane after one of its outputs, as integers below 2^width; `n`: its break point, 0 for maps without one."""

    x: int
    y: int
    w: int
    c: int
    n: int = 0


class LaneModel:
    """Lanes of words of any width; at 64 bits those of `encdl.keys.sequences`.

    Every tensor holds words as signed integers of the width, which wrap as the words do.

    Args:
        name: Of the map, as in `encdl.keys.sequences`.
        width: 16, 32 or 64.
    """

    def __init__(self, name: str, width: int) -> None:
        self.name, self.width, self.half = name, width, width // 2
        self.dtype = _DTYPES[width]
        self._turn_x, self._turn_y = 29 * width // 64, 19 * width // 64
        self._multiplier = self.signed(_GOLDEN >> 64 - width | 1)
        self._low, self._top = (1 << self.half) - 1, -1 << width - 1

    @property
    def break_points(self) -> range:
        """Values of a map's parameter: the numerators n of a break point n / 2^(width / 2 - 1)."""
        if self.name in {"tent", "piecewise_linear"}:
            return range(1 << self.half - 3, 3 << self.half - 3)
        return range(1)

    @property
    def attack_bits(self) -> int:
        """Binary logarithm of the guesses that `recovered` needs."""
        return self.width + (len(self.break_points) - 1).bit_length()

    def signed(self, word: int) -> int:
        """A word as the tensors hold it."""
        word %= 1 << self.width
        return word - (1 << self.width) if word >> self.width - 1 else word

    def tensor(self, words: Iterable[int], device: str = "cpu") -> Tensor:
        """Words as a tensor."""
        return torch.tensor([self.signed(word) for word in words], dtype=self.dtype, device=device)

    def seeded(self, words: Sequence[int]) -> State:
        """A lane before its first step, from random words: x, y, w, c and the map's parameter."""
        x, y, w, c, parameter = words
        n = self.break_points[parameter >> self.half + 2] if len(self.break_points) > 1 else 0
        return State(x, y, w, c | 1, n)

    def run(self, state: State, steps: int) -> tuple[list[int], State]:
        """The next outputs of a lane, below 2^width, and its state after them."""
        f, modulus = self.map(state.n), 1 << self.width
        x, y, w, c = (self.tensor([value]) for value in (state.x, state.y, state.w, state.c))
        found = []
        for _ in range(steps):
            x, y, w = self._step(f, x, y, w, c)
            found.append(int(x + self._spread(y)) % modulus)
        return found, self._state(x, y, w, c, state.n)

    def _state(self, x: Tensor, y: Tensor, w: Tensor, c: Tensor, n: int) -> State:
        modulus = 1 << self.width
        return State(int(x) % modulus, int(y) % modulus, int(w) % modulus, int(c) % modulus, n)

    def map(self, n: int) -> Map:
        """The map with break point n."""
        maps: dict[str, Map] = {
            "logistic": lambda u: ~self._square(u),
            "chebyshev": lambda u: self._square(self._square(u) ^ self._top) ^ self._top,
            "tent": lambda u: self._tent(u, n),
            "piecewise_linear": lambda u: self._piecewise_linear(u, n),
        }
        return maps[self.name]

    def recovered(
        self, outputs: Sequence[int], n: int = 0, known: int = 0, bits: int | None = None, device: str = "cpu"
    ) -> list[State]:
        """States that explain outputs.

        Args:
            outputs: Five or more of one lane, one after the other; those after the fourth tell chance from truth.
            n: The break point.
            known: Of y after the fourth, where its top bits are known.
            bits: How many of its bits are to guess; None for all.
            device: Where to try the guesses.

        Returns:
            Each state after the last output.
        """
        bits = self.width if bits is None else bits
        f, modulus, start = self.map(n), 1 << self.width, known >> bits << bits
        first = [self.signed(word) for word in outputs[:4]]
        found = []
        for guess in self._fitting(f, first, start, bits, device):
            y = self.tensor([guess])
            x, w, c, _ = self._before(f, first, y)
            for word in outputs[4:]:
                x, y, w = self._step(f, x, y, w, c)
                if int(x + self._spread(y)) % modulus != word:
                    break
            else:
                found.append(self._state(x, y, w, c, n))
        return found

    def _fitting(self, f: Map, outputs: list[int], start: int, bits: int, device: str) -> list[int]:
        """Which y after the fourth output fit all four, of the 2^bits from `start` on."""
        library = compiled.library("encdl_maps_revision", REVISION)
        if device == "cpu" and self.width == 32 and self.name in _IN_C and library is not None:
            room, given = np.zeros(_ROOM, np.uint32), np.array(outputs, np.int32)
            library.encdl_search.restype = ctypes.c_int64
            count = library.encdl_search(
                _IN_C[self.name],
                ctypes.c_void_p(given.ctypes.data),
                ctypes.c_uint32(start),
                ctypes.c_int64(1 << bits),
                ctypes.c_void_p(room.ctypes.data),
                ctypes.c_int64(_ROOM),
            )
            return [int(guess) for guess in room[:count]]
        chunk = min(CHUNK[torch.device(device).type], 1 << bits)
        part = torch.arange(chunk, device=device).to(self.dtype)
        found = []
        for first in range(start, start + (1 << bits), chunk):
            guesses = part + self.signed(first)
            _, _, c, before = self._before(f, outputs, guesses)
            found += guesses[(before == c) & (c & 1 == 1)].tolist()
        return found

    def _before(self, f: Map, outputs: list[int], y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, w and the last two steps of w that follow from a guess."""
        ws: list[Tensor] = []
        x = outputs[3] - self._spread(y)
        last = x
        for output in reversed(outputs[:3]):
            y = self._turned(y, self.width - self._turn_y) - f(x)
            before = output - self._spread(y)
            ws.append(self._turned(x, self.width - self._turn_x) - before - f(y))
            x = before
        return last, ws[0], ws[0] - ws[1], ws[1] - ws[2]

    def _step(self, f: Map, x: Tensor, y: Tensor, w: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        w = w + c
        x = self._turned(x + f(y) + w, self._turn_x)
        return x, self._turned(y + f(x), self._turn_y), w

    def _spread(self, y: Tensor) -> Tensor:
        z = y * self._multiplier
        return z ^ self._right(z, self.half)

    def _turned(self, word: Tensor, left: int) -> Tensor:
        return word << left | self._right(word, self.width - left)

    def _right(self, word: Tensor, count: int) -> Tensor:
        """Shifted to the right, with zeros from the left."""
        return word >> count & (1 << self.width - count) - 1

    def _square(self, s: Tensor) -> Tensor:
        d = s.abs() << 1
        high, low = self._right(d, self.half), d & self._low
        rest = high * low + self._right(low * low, self.half + 1)
        return high * high + self._right(rest, self.half - 1)

    def _tent(self, u: Tensor, n: int) -> Tensor:
        below = self._right(u, 1) < n << self.half
        return self._scaled(torch.where(below, u, ~u), below, n)

    def _piecewise_linear(self, u: Tensor, n: int) -> Tensor:
        folded = u ^ u >> self.width - 1
        below = folded < n << self.half
        return self._scaled(torch.where(below, folded, folded - (n << self.half)) << 1, below, n)

    def _scaled(self, v: Tensor, below: Tensor, n: int) -> Tensor:
        one = 1 << self.width - 3
        left, right = self.tensor([one // n, one // ((1 << self.half - 1) - n)], str(v.device))
        slope = torch.where(below, left, right)
        return (self._right(v, self.half) * slope << 2) + self._right((v & self._low) * slope, self.half - 2)
