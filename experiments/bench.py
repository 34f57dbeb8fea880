"""Times encryption, reading, training and whole files, beside AES-256-GCM and plaintext: `make bench`.

Writes experiments/results/bench-cpu.json (or bench-cuda.json), in one run: times compare only within one record. Every
part stands alone: one that breaks is named under `failed`, and the others are written all the same. It needs neither
network nor monai (another ResNet-18 then stands in, as the record says), nor pydicom, tifffile and MLflow.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import secrets
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from encdl.utils.processes import wait_briefly

wait_briefly()  # as the commands do, before torch is loaded

import bench_files
import torch
from bench_networks import plaintext_network
from cryptography.hazmat.primitives.ciphers import Cipher as LibraryCipher
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from encdl.audit.studies import cost
from encdl.audit.studies.timing import milliseconds, ratios, take_turns
from encdl.ciphers import batches
from encdl.ciphers.agile import AgileCipher
from encdl.ciphers.nn.plane_tensors import plane_tensor
from encdl.keys.planes import PlaneSpec
from encdl.readers import PlainStem, Reader
from encdl.training.tasks.encrypt import EncryptTask, LossWeights
from encdl.training.tasks.key_planes import fresh_generator, fresh_planes
from encdl.training.tasks.random_damage import RandomDamage
from encdl.training.tasks.views import Ciphertext, Functional, Plaintext, View
from encdl.utils import records

RESULTS = Path(__file__).parent / "results"
ROUNDS = {"cpu": 5, "cuda": 15}
MANY = {"cpu": 32, "cuda": 8192}
"""Images of 256x256 in memory at a time, for the throughput of encryption."""
BATCHES = {"cpu": (1, 8, 32), "cuda": (1, 8, 32, 256, 1024, 8192)}
PIXELS = {"cpu": 2**20, "cuda": 2**26}
"""Of the batches of one size after another; the planes are compared at a quarter of it."""
SIDES = (32, 64, 128, 256, 512, 1024)
READ = {"cpu": ((128, 256), (1, 4)), "cuda": ((128, 256), (1, 32))}
TRAIN = {"cpu": (4, 64, 1), "cuda": (64, 128, 10)}
"""Images a step, their side, and steps between two looks at the clock."""
DECRYPTION = {"cpu": (2, 32, 1), "cuda": (160, 64, 10)}
"""The same of the decryption network: on a GPU those of its recipe."""
LIBRARY_BYTES = 2**26
SECRET = bytes(range(32))


def noise(*shape: int, device: str) -> Tensor:
    """Uniform bytes: no step's time depends on what they are."""
    return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)


def medians(steps: dict[str, Callable[[], Any]], device: str) -> dict[str, float]:
    """Seconds of each step, in turns: on a CPU of this process alone, whatever else the machine does (`timing`)."""
    found = take_turns(steps, ROUNDS[device], torch.device(device)).own
    return {name: 1e-3 * value for name, value in milliseconds(found).items()}


def _bytes_per_s(cipher: AgileCipher, shape: tuple[int, ...], device: str) -> dict[str, float]:
    images, nonces = noise(*shape, device=device), noise(shape[0], 16, device=device)
    steps: dict[str, Callable[[], Any]] = {
        "encrypt": lambda: batches.encrypt(cipher, images, SECRET, nonces),
        "decrypt": lambda: batches.decrypt(cipher, images, SECRET, nonces),
    }
    return {name: images.numel() / time_s for name, time_s in medians(steps, device).items()}


def encryption(device: str) -> Iterator[dict[str, Any]]:
    """From nonces to the bytes of files in memory, by batch, by size and by key planes; libraries' ciphers beside it.

    Yields:
        Metrics as they are found: those found before something breaks are kept.
    """
    cipher = AgileCipher().to(device).eval()
    by_batch = {count: _bytes_per_s(cipher, (count, 1, 256, 256), device) for count in BATCHES[device]}
    yield {"encrypt_256_images_per_s": max(rates["encrypt"] for rates in by_batch.values()) / 2**16}
    yield {"bytes_per_s_by_images_of_256px": by_batch}
    sides = {side: (max(1, PIXELS[device] // side**2), 1, side, side) for side in SIDES}
    yield {"bytes_per_s_by_side": {side: _bytes_per_s(cipher, shape, device) for side, shape in sides.items()}}
    yield {"bytes_per_s_by_planes": _by_planes(PIXELS[device] // 2**18, device)}
    data, key = secrets.token_bytes(LIBRARY_BYTES), secrets.token_bytes(32)
    steps: dict[str, Callable[[], Any]] = {
        "AES-256-GCM": lambda: AESGCM(key).encrypt(bytes(12), data, None),
        "ChaCha20": lambda: LibraryCipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor().update(data),
    }
    found = medians(steps, "cpu")
    yield {"bytes_per_s_of_cryptography": {name: LIBRARY_BYTES / time_s for name, time_s in found.items()}}


def _by_planes(count: int, device: str) -> dict[int, float]:
    """Key planes, mask and addition of images of 256x256."""
    images, found = noise(count, 1, 256, 256, device=device), {}
    seeds = [secrets.token_bytes(32) for _ in range(count)]
    for planes in (1, 2, 4, 8):
        cipher, spec = AgileCipher(planes).to(device).eval(), PlaneSpec(count=planes)

        def step(cipher: AgileCipher = cipher, spec: PlaneSpec = spec) -> Tensor:
            return cipher.encrypt(images, plane_tensor(seeds, spec, images.shape[1:], device))

        found[planes] = images.numel() / medians({"encrypt": step}, device)["encrypt"]
    return found


def reading(device: str) -> Iterator[dict[str, Any]]:
    """A reader of ciphertext beside the plaintext network, and beside decrypting first."""
    stem = PlainStem(1)
    network = plaintext_network(stem.width)
    yield {"network": network.title}
    cost.ROUNDS = 2 * ROUNDS[device]
    reader, cipher = Reader(stem, network), AgileCipher().to(device).eval()
    found: dict[str, Any] = {}
    for size in READ[device][0]:
        for batch in READ[device][1]:
            [times] = cost.cost(reader, cipher, PlaneSpec(), device, (size,), (batch,)).values()
            found[f"{size}px_{batch}"] = times
            told = {name: times["ciphertext_to_plain"] for name, times in found.items()}
            yield {"read_over_plain": told, "reading_ms": dict(found)}


class StepKeys:
    """Keys of one training step: see `encdl.training.tasks.views.Keys`."""

    def __init__(self, shape: torch.Size, step: int, device: str) -> None:
        self.shape, self.step, self.device = shape, step, device

    def fresh(self, purpose: str) -> Tensor:
        """Of another key for each image."""
        where = {"rank": 0, "purpose": purpose, "step": self.step, "device": self.device}
        return fresh_planes(PlaneSpec(), self.shape, seed=0, **where)  # type: ignore[arg-type]

    def fixed(self, purpose: str) -> Tensor:
        """Not asked for here."""
        raise NotImplementedError

    def generator(self, purpose: str) -> torch.Generator:
        """Random numbers of the step."""
        return fresh_generator(seed=0, rank=0, purpose=purpose, step=self.step)


class Training:
    """Steps of a reader as `ReadTask` takes them, without its logging and its loader, under fresh keys in each."""

    def __init__(self, view: View, stem: nn.Module, device: str) -> None:
        count, side, self.steps = TRAIN[device]
        self.view, self.cipher, self.device = view, AgileCipher().to(device), device
        self.reader = Reader(stem, plaintext_network(stem.width)).to(device)  # type: ignore[arg-type]
        self.image, self.label = noise(count, 1, side, side, device=device), torch.arange(count, device=device) % 4
        self.optimizer = torch.optim.AdamW(self.reader.parameters(), fused=True)
        self.done = 0

    def __call__(self) -> None:
        """Some steps."""
        for _ in range(self.steps):
            sight = self.view.train(self.cipher, self.image, StepKeys(self.image.shape, self.done, self.device))
            loss = nn.functional.cross_entropy(self.reader(sight.picture, sight.mask), self.label)
            loss = loss + self.view.penalty(self.reader, sight)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.done += 1


def training(device: str) -> Iterator[dict[str, Any]]:
    """A training step of a reader on ciphertext, in the full view and by a functional key, over the plaintext step."""
    count, side, steps = TRAIN[device]
    size = {"size": (side, side), "width": 16, "expand": 1, "adversary": 0.0}
    views: dict[str, Callable[[], Training]] = {
        "plain": lambda: Training(Plaintext(), Plaintext().stem(1), device),
        "ciphertext": lambda: Training(Ciphertext(), Ciphertext().stem(1), device),
        "functional": lambda: Training(Functional(), Functional().stem(1, **size), device),
    }
    each = {name: make() for name, make in views.items()}
    found = take_turns(each, 2 * ROUNDS[device], torch.device(device)).own
    told = ratios(found, [("ciphertext", "plain"), ("functional", "plain")])
    yield {
        "train_step_over_plain": told["ciphertext_to_plain"],
        "training": {
            "images": count, "side": side, "ratios": told,
            "step_ms": {name: value / steps for name, value in milliseconds(found).items()},
        },
    }  # fmt: skip


class Decryption:
    """Training steps of the shipped decryption network as `EncryptTask` takes them, compiled as on a GPU or not."""

    def __init__(self, device: str, compiled: bool) -> None:
        self.count, self.side, self.steps = DECRYPTION[device]
        on_gpu = device == "cuda"
        task = EncryptTask(
            AgileCipher(), damage=RandomDamage(gaussian=4.0), loss_weights=LossWeights(mixture=0.1),
            precision="bf16" if on_gpu else "32",
        )  # fmt: skip
        self.task, self.done = task.to(device), 0
        if compiled:
            for network in task._decryption_networks():
                network.compile_training()
        self.image = noise(self.count, 1, self.side, self.side, device=device)
        trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
        self.trained, self.optimizer = trained, torch.optim.AdamW(trained, fused=True)

    def __call__(self) -> None:
        """Some steps."""
        for _ in range(self.steps):
            loss = self.task._sum(self.task._losses(self.image, self.done))
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.trained, 1.0)
            self.optimizer.step()
            self.done += 1


def decryption(device: str) -> Iterator[dict[str, Any]]:
    """A step of the decryption network's training, and how much of it a GPU idles, by the profiler.

    On a GPU once more compiled, as the large recipe has it.
    """
    yield {"decryption_training": _decryption_step(device, compiled=False)}
    if device == "cuda":
        yield {"decryption_training_compiled": _decryption_step(device, compiled=True)}


def _decryption_step(device: str, compiled: bool) -> dict[str, Any]:
    work = Decryption(device, compiled)
    work()
    step_s = medians({"step": work}, device)["step"] / work.steps
    told: dict[str, Any] = {"images": work.count, "side": work.side, "step_ms": 1e3 * step_s}
    if device == "cpu":
        return told
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        work()
        torch.cuda.synchronize()
    busy_s = 1e-6 * sum(row.self_device_time_total for row in found.key_averages()) / work.steps
    kernels = sorted(found.key_averages(), key=lambda row: -row.self_device_time_total)[:12]
    longest = {row.key[:80]: row.self_device_time_total / 1e3 / work.steps for row in kernels}
    return told | {"idle_share": 1 - busy_s / step_s, "longest_kernels_ms": longest}


def files(device: str) -> Iterator[dict[str, Any]]:
    """Whole files from disk to disk; see `bench_files`."""
    _, small = bench_files.slices()
    with tempfile.TemporaryDirectory() as folder:
        found = bench_files.measure(device, Path(folder), small)
    volume = next(each for name, each in found.items() if "16 bit" in name)
    yield {"file_over_aes_gcm": volume["aes_encrypt_to_encdl_encrypt"], "files": found}


def memory(device: str) -> Iterator[dict[str, Any]]:
    """Bytes beside what is given: peaks of the device; on a CPU the process's own, all parts before this included."""
    if device == "cpu":
        yield {"memory": {"process_peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}}
        return
    cipher, images = AgileCipher().to(device).eval(), noise(1024, 1, 256, 256, device=device)
    nonces = noise(1024, 16, device=device)
    steps: dict[str, Callable[[], Any]] = {
        "encrypt 1024 images of 256px": lambda: batches.encrypt(cipher, images, SECRET, nonces),
        "10 training steps, plain": Training(Plaintext(), Plaintext().stem(1), device),
        "10 training steps, ciphertext": Training(Ciphertext(), Ciphertext().stem(1), device),
    }
    found = {}
    for name, step in steps.items():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        found[name] = torch.cuda.max_memory_allocated() - before
    yield {"memory": found}


def homomorphic(device: str) -> Iterator[dict[str, Any]]:
    """One dense layer over an encrypted image of 28x28, by TenSEAL's CKKS, on the CPU."""
    try:
        seal = importlib.import_module("tenseal")
    except ImportError:
        yield {"homomorphic": "TenSEAL was not installed"}
        return
    context = seal.context(seal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40, 60])
    context.global_scale = 2**40
    context.generate_galois_keys()
    image, layer = torch.rand(784).tolist(), torch.randn(784, 10).tolist()
    encrypted = seal.ckks_vector(context, image)
    steps: dict[str, Callable[[], Any]] = {
        "encrypt": lambda: seal.ckks_vector(context, image),
        "dense layer, 784 to 10": lambda: encrypted.matmul(layer),
    }
    yield {"homomorphic": {"seconds": medians(steps, "cpu"), "library": f"TenSEAL {seal.__version__}"}}


PARTS = (encryption, reading, training, files, homomorphic, memory, decryption)


def main() -> int:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("-o", "--output", type=Path, help="record to write, in the place of the project's own")
    names = [part.__name__ for part in PARTS]
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="measure these alone")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here, or torch was built without CUDA")
    output, started = args.output or RESULTS / f"bench-{args.device}.json", time.monotonic()
    metrics: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    for part in PARTS:
        if part.__name__ not in args.parts:
            continue
        begun = time.monotonic()
        try:
            for found in part(args.device):
                metrics |= found
                _write(output, metrics | {"seconds_of_parts": seconds, "failed": failed}, args.device, started)
        except Exception as error:  # the other parts may still tell something
            failed[part.__name__] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        seconds[part.__name__] = time.monotonic() - begun
        print(f"{part.__name__}: {seconds[part.__name__]:.1f} s", flush=True)
        _write(output, metrics | {"seconds_of_parts": seconds, "failed": failed}, args.device, started)
    for name, value in metrics.items():
        print(f"{name}: {value}")
    print(f"record: {output}")
    return len(failed)


def _write(output: Path, metrics: dict[str, Any], device: str, started: float) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    content = records.record(
        output.stem,
        "bench",
        config="experiments/bench.py",
        dataset=f"uniform noise in memory; files: {bench_files.slices()[0]}, and uniform noise of 16 bit",
        seeds=[0],
        metrics=metrics,
        wall_s=time.monotonic() - started,
        device=device,
    )
    records.write(output, content, force=True)


if __name__ == "__main__":
    sys.exit(main())
