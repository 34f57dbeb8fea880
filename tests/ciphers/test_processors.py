"""The compiled library on other processors, which QEMU stands in for: it leaves what the one of this machine leaves."""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from encdl.audit.attacks.lane_model import LaneModel
from encdl.ciphers import compiled_ciphers
from encdl.utils import compiled

Array = np.ndarray[Any, Any]

ROOT = Path(__file__).parents[2]
SOURCES = sorted(str(file) for file in (ROOT / "encdl").rglob("*.c"))
PROCESSORS = {
    "ARM": ("aarch64-linux-gnu-gcc", ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]),
    "x86 without AVX2": ("gcc", ["qemu-x86_64", "-cpu", "Nehalem"]),
}
DRAW = np.random.default_rng(21)
GRAINS = 1024
"""A float goes to the driver in these."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not compiled_ciphers.available(), reason="no compiled code for this processor"),
]


class Call(NamedTuple):
    """A function with numbers and memory as its arguments, and one float wherever it takes that."""

    name: str
    arguments: Sequence[int | Array]
    real: tuple[int, float] | None = None
    scratch: int | None = None
    """Which argument is memory whose content nobody looks at."""
    exact: bool = True


def drawn(*shape: int, kind: type = np.uint8) -> Array:
    return DRAW.integers(0, 2 ** (8 * np.dtype(kind).itemsize) - 1, shape, kind, endpoint=True)


def calls() -> list[Call]:
    """One or more of each function that works; widths with and without a rest, maps of all kinds."""
    networks = np.frombuffer(compiled_ciphers.networks(), np.uint8)
    found = []
    for count, height, width in ((2, 1, 1), (2, 5, 7), (1, 40, 33), (1, 70, 131), (1, 64, 256)):
        keys, room = drawn(count, height, width), np.zeros(2**20, np.uint8)
        sizes = (count, height, width)
        found.append(Call("encdl_masks", (networks, keys, np.zeros_like(keys), *sizes, room, 0, 1, 2), scratch=6))
        starts = DRAW.integers(0, height * width, count)
        found += [
            Call("encdl_interleave", (drawn(*sizes), drawn(*sizes), starts, count, 1, height, width, undo))
            for undo in (0, 1)
        ]
        passes = np.array([(along, back) for along in (0, 1) for back in (0, 1)], np.int32)
        for undo in (0, 1):
            streams = (drawn(4, 256), drawn(4, height, width))
            found.append(Call("encdl_diffuse", (drawn(height, width), *streams, passes, 4, height, width, undo)))
    for code in range(4):  # of all maps
        state = drawn(7, 33, kind=np.uint64)
        state[4] >>= np.uint64(1)  # a break point, and slopes
        state[5:] >>= np.uint64(32)
        found.append(Call("encdl_iterate", (code, 2, state, drawn(9, 33, kind=np.uint64), 33, 9)))
    noisy = DRAW.random((2, 30, 42), np.float32)
    sigmas, basis, window = (DRAW.random(size, np.float32) for size in (2, 36, 36))
    shrunk = (noisy, np.zeros((2, 2, 30, 42), np.float32), 2, 30, 42, sigmas, 2, np.zeros(2**16, np.float32))
    found.append(Call("encdl_shrink", shrunk, (7, 2.5), scratch=7, exact=False))
    groups = (*noisy, 30, 42, 0, 7, 0, 8, basis, window, *np.zeros((2, 30, 42), np.float32))
    found.append(Call("encdl_collaborate", groups, (8, 0.25), exact=False))
    model = LaneModel("logistic", 32)
    outputs, end = model.run(model.seeded([3, 1, 4, 1, 5]), 4)
    words = np.array(outputs, np.int64).astype(np.uint32)
    found.append(Call("encdl_search", (0, words, end.y - 1000, 5000, np.zeros(8, np.uint32), 8)))
    return found


def packed(call: Call) -> bytes:
    """As driver.c reads it."""
    parts = [call.name.encode().ljust(32, b"\0"), struct.pack("<q", int(GRAINS * (call.real[1] if call.real else 0)))]
    parts.append(struct.pack("<q", len(call.arguments)))
    for each in call.arguments:
        parts += (
            [struct.pack("<qq", 0, each)] if isinstance(each, int) else [struct.pack("<q", each.nbytes), each.tobytes()]
        )
    return b"".join(parts)


def left_here(call: Call, library: ctypes.CDLL) -> dict[int, Array]:
    """What the library of this machine leaves in memory, by argument."""
    memory = [each if isinstance(each, int) else each.copy() for each in call.arguments]
    words: list[Any] = [
        ctypes.c_int64(each) if isinstance(each, int) else ctypes.c_void_p(each.ctypes.data) for each in memory
    ]
    if call.real:
        words.insert(call.real[0], ctypes.c_float(call.real[1]))
    getattr(library, call.name)(*words)
    return {place: each for place, each in enumerate(memory) if not isinstance(each, int)}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_another_processor_leaves_the_same(processor: str, tmp_path: Path) -> None:
    compiler, emulator = PROCESSORS[processor]
    if missing := [name for name in (compiler, emulator[0]) if not shutil.which(name)]:
        pytest.skip(
            f"{missing[0]} is not installed: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
        )
    library = compiled.library("encdl_mask_revision", compiled_ciphers.REVISION)
    assert library is not None
    strict = [compiler, "-O3", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*strict, "-shared", "-fPIC", "-o", tmp_path / "library.so", *SOURCES], check=True)
    subprocess.run([*strict, "-o", tmp_path / "driver", Path(__file__).with_name("driver.c"), "-ldl"], check=True)
    every = calls()
    told = b"".join(map(packed, every))
    command = [*emulator, str(tmp_path / "driver"), str(tmp_path / "library.so")]
    done = subprocess.run(command, input=told, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    rest = done.stdout
    for call in every:
        for place, here in left_here(call, library).items():
            there, rest = np.frombuffer(rest[: here.nbytes], here.dtype).reshape(here.shape), rest[here.nbytes :]
            if call.exact and place != call.scratch:
                assert np.array_equal(there, here), call.name
            elif place != call.scratch:  # processors multiply and add in one step, or in two
                np.testing.assert_allclose(there, here, 1e-4, 1e-5, err_msg=call.name)
    assert not rest
