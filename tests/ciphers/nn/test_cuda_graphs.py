from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from encdl import ciphers
from encdl.ciphers.nn import cuda_graphs
from encdl.ciphers.nn.cuda_graphs import MOST_ELEMENTS, MOST_RECORDINGS, played

ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Scale(nn.Module):
    """Counts how often it is run in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]), requires_grad=False)
        self.runs = 0

    def times(self, x: Tensor, y: Tensor) -> Tensor:
        self.runs += 1
        return x * self.weight + y

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return played(self, [self.weight], self.times, x, y)


@pytest.fixture
def scale() -> Iterator[Scale]:
    yield Scale().cuda()
    torch.cuda.synchronize()


def pair(count: int = 5, start: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.arange(start, start + count, dtype=torch.float32, device="cuda")
    return x, 100 * x


def test_a_cpu_plays_nothing() -> None:
    module, x = Scale(), torch.ones(3)
    for runs in (1, 2, 3):
        assert torch.equal(module(x, x), 3 * x)
        assert module.runs == runs


@ON_A_GPU
def test_from_the_third_call_on_python_does_not_run(scale: Scale) -> None:
    found = []
    for turn in range(6):
        x, y = pair(start=turn)
        found.append(scale(x, y))
    assert scale.runs == 3  # once by itself, once before the recording and once in it
    for turn, one in enumerate(found):  # each is in memory of its own
        assert torch.equal(one, 102 * pair(start=turn)[0])


@ON_A_GPU
def test_weights_that_change_are_seen(scale: Scale) -> None:
    def right() -> bool:
        x, y = pair()
        return torch.equal(scale(x, y), x * scale.weight + y)

    assert all(right() for _ in range(3))
    scale.weight.data.add_(1)
    assert right()
    scale.weight.data = torch.tensor([7.0], device="cuda")
    assert all(right() for _ in range(3))
    scale.load_state_dict({"weight": torch.tensor([9.0], device="cuda")}, assign=True)
    assert all(right() for _ in range(3))
    scale.cpu().cuda()
    assert all(right() for _ in range(3))
    twin = copy.deepcopy(scale)
    twin.weight.data.zero_()
    assert torch.equal(twin(*pair()), pair()[1])
    assert right()


@ON_A_GPU
def test_many_shapes(scale: Scale) -> None:
    for count in [*range(1, 3 * MOST_RECORDINGS)] * 3:
        assert torch.equal(scale(*pair(count)), 102 * pair(count)[0])
    assert len(cuda_graphs._of[scale]._kept) == MOST_RECORDINGS
    runs = scale.runs
    for _ in range(4):
        scale(*pair(MOST_ELEMENTS + 1))
    assert scale.runs == runs + 4


@ON_A_GPU
def test_inference_mode_inside_and_outside(scale: Scale) -> None:
    for mode in (True, False, True, False):
        with torch.inference_mode(mode):
            x, y = pair()
            for _ in range(3):
                assert torch.equal(scale(x, y), 102 * x)


@ON_A_GPU
def test_other_streams_and_threads(scale: Scale) -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream() if number % 2 else torch.cuda.default_stream()):
            for turn in range(50):
                x, y = pair(4096, start=number * turn)
                if not torch.equal(scale(x, y), 102 * x):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_each_gpu_has_recordings_of_its_own() -> None:
    modules = [Scale().to(f"cuda:{index}") for index in (0, 1)]
    for turn in range(4):
        for index, module in enumerate(modules):
            x = torch.full((4,), float(turn), device=f"cuda:{index}")
            found = module(x, 100 * x)
            assert found.device == x.device
            assert found.tolist() == [102.0 * turn] * 4
            assert torch.cuda.current_device() == 0


@ON_A_GPU
def test_in_a_recording_of_the_users_own(scale: Scale) -> None:
    x, y = pair()
    for _ in range(3):
        scale(x, y)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = scale(x, y)
    x.fill_(1)
    graph.replay()
    assert torch.equal(out, 2 + y)


@ON_A_GPU
def test_recordings_go_with_their_module() -> None:
    module = Scale().cuda()
    for _ in range(3):
        module(*pair())
    gone = weakref.ref(module)
    del module
    torch.cuda.synchronize()
    assert gone() is None


@ON_A_GPU
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 1, 21, 30), (2, 3, 64, 48), (1, 1, 1100, 1000)], ids=str)
def test_a_cipher_gives_the_same_bytes_each_time(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    cipher = ciphers.create("agile", {}).eval()
    on_gpu = copy.deepcopy(cipher).cuda()
    for _ in range(4):
        image = torch.randint(0, 256, shape, dtype=torch.uint8)
        planes = torch.randint(0, 2, (*shape[:2], 8, *shape[2:]), dtype=torch.uint8)
        expected = cipher.encrypt(image, planes)
        ciphertext = on_gpu.encrypt(image.cuda(), planes.cuda())
        assert torch.equal(ciphertext.cpu(), expected)
        assert torch.equal(on_gpu.decrypt(ciphertext, planes.cuda()).cpu(), image)
        assert torch.equal(on_gpu.field(ciphertext, planes.cuda()).cpu(), expected - image)
        with torch.autocast("cuda", torch.float16), torch.inference_mode():
            assert torch.equal(on_gpu.encrypt(image.cuda(), planes.cuda()).cpu(), expected)
        with torch.no_grad():
            for weight in (cipher.key_field.out.weight, on_gpu.key_field.out.weight):
                weight.sub_(1)
