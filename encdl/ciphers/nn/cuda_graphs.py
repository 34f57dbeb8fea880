"""CUDA graphs: a GPU takes longer to be told of two hundred small kernels than to run them, so it is told once.

What a module does to tensors of some shapes is recorded when they come a second time, and played from then on
(`torch.cuda.CUDAGraph`). A recording reads the weights where they lie: weights that change in their place are seen, and
others in another place make a new recording. The last inputs stay in the GPU's memory, as what was freed there does.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

MOST_ELEMENTS = 2**20
"""Of the first tensor. With more, the kernels' own time counts; a recording of so many pixels holds about 100 MB."""
MOST_RECORDINGS = 8
"""Of a module; the one that was not played for the longest time goes first."""

Function = Callable[..., Tensor]


def played(module: nn.Module, weights: Iterable[Tensor], function: Function, *inputs: Tensor) -> Tensor:
    """`function(*inputs)`, without gradients, from a recording where that is faster.

    Args:
        module: What the recordings go away with.
        weights: All that the function reads besides its arguments.
        function: A method of `module` that launches kernels and does nothing else: no look at a value, no transfer.
        inputs: On one device.

    Returns:
        What the function gives, in memory of its own.
    """
    if not inputs[0].is_cuda or inputs[0].numel() > MOST_ELEMENTS or torch.cuda.is_current_stream_capturing():
        return function(*inputs)
    with _lock:
        return _of.setdefault(module, _Recordings()).play(weights, function, inputs)


class _Recording:
    """A function's kernels with the memory that they read and write."""

    def __init__(self, function: Function, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = [torch.empty_like(tensor).copy_(tensor) for tensor in inputs]
        function(*self._inputs)  # libraries choose their kernels before these are recorded
        self._graph = torch.cuda.CUDAGraph()
        # A stream of this device, as PyTorch's own for recordings is of the first. Other threads may go on meanwhile.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._output = function(*self._inputs)

    def play(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._output.clone()


class _Recordings:
    """A module's recordings, and what was called once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, _Recording | None] = OrderedDict()

    def play(self, weights: Iterable[Tensor], function: Function, inputs: tuple[Tensor, ...]) -> Tensor:
        device = inputs[0].device
        stream = torch.cuda.current_stream(
            device
        ).cuda_stream  # of two, one would write what the other still reads
        call = (
            function.__name__,
            stream,
            *(getattr(torch.backends.cudnn, name) for name in ("allow_tf32", "benchmark", "deterministic")),
            *((tensor.shape, tensor.dtype) for tensor in inputs),
            *((weight.data_ptr(), weight.dtype) for weight in weights),
        )
        if call not in self._kept:
            self._kept[call] = None
            while len(self._kept) > MOST_RECORDINGS:
                self._kept.popitem(last=False)
            return function(*inputs)
        self._kept.move_to_end(call)
        # Memory of inference mode could not be written outside of it.
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(device):
            recording = self._kept[call]
            if recording is None:
                recording = self._kept[call] = _Recording(function, inputs)
            return recording.play(inputs)


_of: WeakKeyDictionary[nn.Module, _Recordings] = WeakKeyDictionary()
_lock = threading.Lock()
