"""Launching several kernels as one: for few pixels the launches themselves are what takes time.

A function that is called again with tensors of the same shapes is recorded as a CUDA graph, and replayed from then on.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOST_PIXELS = 2**22
"""Of a call that is worth recording: what is kept of it stays in the device's memory."""
_CALLS, _KEPT = 2, 16
"""Calls before a recording, and recordings that are kept."""

_lock = threading.Lock()
_recordings: OrderedDict[Any, _Recording | int | None] = OrderedDict()


class _Recording:
    def __init__(self, function: Callable[[Tensor], Tensor], given: Tensor) -> None:
        self.given, self.graph = given.clone(), torch.cuda.CUDAGraph()
        function(self.given)  # whatever is made at the first call is there then
        torch.cuda.synchronize(given.device)
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.found = function(self.given)

    def __call__(self, given: Tensor) -> Tensor:
        self.given.copy_(given)
        self.graph.replay()
        return self.found.clone()


def replayed(function: Callable[[Tensor], Tensor], name: Any, given: Tensor, pixels: int) -> Tensor:
    """The function's result.

    Args:
        function: Launches kernels on the device of what it is given, and reads nothing back.
        name: Tells functions, and their results' shapes, apart.
        given: Without a gradient; on a CPU nothing is recorded.
        pixels: How many the result has.
    """
    if given.device.type != "cuda" or pixels > MOST_PIXELS or torch.cuda.is_current_stream_capturing():
        return function(given)
    stream = torch.cuda.current_stream(given.device)
    key = (name, given.shape, given.dtype, given.device, stream.stream_id)
    with _lock:
        recording = _recordings.get(key)
        if isinstance(recording, _Recording):
            _recordings.move_to_end(key)
            with torch.cuda.device(given.device):
                return recording(given)
    # Memory that is kept must not belong to the caller's inference mode, or nobody else could write to it.
    with _lock, torch.inference_mode(False), torch.no_grad(), torch.cuda.device(given.device):
        known = _recordings.pop(key, 0)  # another thread's recording by now, perhaps
        if isinstance(known, int) and known < _CALLS:
            known += 1
        elif isinstance(known, int):
            known = _recorded(function, given)
        _recordings[key] = known
        while len(_recordings) > _KEPT:
            _recordings.popitem(last=False)
        return known(given) if isinstance(known, _Recording) else function(given)


def _recorded(function: Callable[[Tensor], Tensor], given: Tensor) -> _Recording | None:
    try:
        return _Recording(function, given)
    except RuntimeError:  # a driver that records nothing, or no memory for it: every kernel is launched by itself
        return None
