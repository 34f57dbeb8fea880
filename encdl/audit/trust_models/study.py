"""One task under five models of trust: accuracy, latency, bytes moved, who sees what, what must be trusted.

All readers are small and alike (`StridedNet`), so that models differ and not networks. Accuracy is over all test
images; of two-party and homomorphic reading it is that of the network in the clear, and a few images are read for
real, whose logits are compared.
"""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from torch import Tensor, nn

from encdl.audit.functional.device_dataset import Resident, resident
from encdl.audit.functional.plan import Plan
from encdl.audit.functional.training import Budget, judge, train_reader
from encdl.audit.trust_models import homomorphic
from encdl.ciphers.weights import load
from encdl.data.base import Split
from encdl.files import container
from encdl.files.codec import Codec
from encdl.files.codecs import codec_with
from encdl.files.reading import Readable
from encdl.files.settings import Settings
from encdl.keys.key import Grant, Key
from encdl.keys.planes import PlaneSpec
from encdl.readers import Backbone, Reader, StridedNet, StridedStem
from encdl.readers.answers import Answer
from encdl.readers.functional_files import FunctionalPredictor, grant_functional
from encdl.readers.predictor import Predictor
from encdl.readers.reader import LoadedReader
from encdl.readers.two_party.environment import interpreter
from encdl.readers.two_party.network import network_of
from encdl.readers.two_party.session import read_here
from encdl.utils.errors import UsageError

READ = 3
"""Images that are read for real by two parties, and under homomorphic encryption."""
TIMED = 30
"""Readings of one image whose least time is told, of the fast models: others share the machine."""
KERNEL, STRIDE, MAPS = 7, 3, 4
"""Of the convolution under homomorphic encryption."""
PATIENCE_S = 600.0

MODELS: dict[str, tuple[str, str, str]] = {
    "decrypt_then_infer": ("the image, and the key", "nothing", "host"),
    "full_grant": ("the image, if it wants: it has a key for this file", "nothing", "host"),
    "functional_key": ("k numbers of the image", "header and reader", "host and key server not to collude"),
    "two_party": (
        "the answer", "header and network's form", "both to follow the protocol, and not to collude",
    ),
    "homomorphic": ("nothing", "-", "CKKS; the client decrypts the answer"),
}  # fmt: skip
"""What the host sees, what the key server sees, and who must be trusted."""


class SquareNet(Backbone):
    """A convolution, squares and a linear layer: what CKKS computes at depth three."""

    def __init__(self, channels: int, classes: int, side: int = 28) -> None:
        super().__init__()
        places = ((side - KERNEL) // STRIDE + 1) ** 2
        self.convolution = nn.Conv2d(channels, MAPS, KERNEL, STRIDE)
        self.linear = nn.Linear(MAPS * places, classes)

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels` and `classes`."""
        return {}

    def forward(self, features: Tensor) -> Tensor:
        """(B, 1, H, W) levels from -1/2 to 1/2, to (B, classes)."""
        logits: Tensor = self.linear(self.convolution(features).square().flatten(1))
        return logits


class Levels(StridedStem):
    """Gives the levels themselves, -1/2 to 1/2."""

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `Stem.forward`, of the image's own size and channels."""
        return image.float() / 255.0 - 0.5


@dataclass(frozen=True)
class Row:
    """The measurements of one trust model.

    Attributes:
        model: A key of `MODELS`.
        numbers: That a functional key gives away; 0 for other models.
        figure: The plan's metric on the test images.
        milliseconds: Of one image, from file to logits.
        moved: Bytes between all that take part, a file's included.
        difference: Largest difference of logits from those on the image.
    """

    model: str
    numbers: int
    figure: float
    milliseconds: float
    moved: int
    difference: float

    def told(self) -> dict[str, Any]:
        """As the record has it."""
        host, server, trust = MODELS[self.model]
        seen = {"host_sees": host.replace("k numbers", f"{self.numbers} numbers"), "key_server_sees": server}
        return {**vars(self), **seen, "must_be_trusted": trust}


class Study:
    """Trains one reader a model, and reads with it.

    Args:
        plan: Data set, backbone of plain and functional readers, settings of functional keys, budget.
        data_dir: The data set's folder.
        seed: Of all trainings.
        progress: Is told what comes next.
    """

    def __init__(self, plan: Plan, data_dir: str, seed: int, progress: Callable[[str], object]) -> None:
        self._plan, self._seed, self._tell = plan, seed, progress
        self._source = plan.data(data_dir)
        self._data: dict[Split, Resident] = resident(self._source, "cpu")
        self._images = self._data["test"].images[:READ]
        self._key, self._cipher = Key.generate(), load("default")

    def rows(self) -> list[Row]:
        """All models; those whose environment is missing are left out, and told."""
        with tempfile.TemporaryDirectory(prefix="encdl-trust-") as folder:
            found = self._plain(Path(folder))
            for number in range(len(self._plan.settings)):
                found.append(self._functional(number, Path(folder)))
        for measure in (self._two_party, self._homomorphic):
            try:
                found.append(measure())
            except UsageError as error:
                self._tell(f"left out: {error}")
        return found

    def _trained(self, reader: Reader, what: str) -> float:
        self._tell(f"training for {what}")
        train_reader(reader, self._data, self._plan.metric, Budget(**self._plan.budget), self._seed)
        reader.eval().requires_grad_(False)
        return judge(reader, self._data["test"], self._plan.metric)

    def _loaded(self, reader: Reader, view: str) -> LoadedReader:
        spec = self._source.spec
        return LoadedReader(reader, spec.classes, (spec.height, spec.width), self._cipher.id, PlaneSpec(), view)

    def _file(self, folder: Path, side: int | None) -> Path:
        path = folder / f"{side}.encdl"
        codec = Codec(self._cipher.cipher, self._cipher.id)
        how = Settings(PlaneSpec(), study="trial", readable=None if side is None else Readable(side))
        path.write_bytes(codec.encrypt_array(self._images[0].numpy().squeeze(0), self._key, how))
        return path

    def _plain(self, folder: Path) -> list[Row]:
        """AES and decrypting first, and a full grant: the same network, and the same weights."""
        reader = self._plan.plaintext(self._source, self._seed)
        figure = self._trained(reader, "plaintext")
        image, aes = self._images[0].numpy(), AESGCM(AESGCM.generate_key(256))
        sealed = aes.encrypt(bytes(12), image.tobytes(), None)

        def decrypted() -> Tensor:
            opened = np.frombuffer(aes.decrypt(bytes(12), sealed, None), np.uint8).reshape(image.shape)
            return reader(torch.from_numpy(opened.copy())[None])[0]  # type: ignore[no-any-return]

        file = self._file(folder, None)
        grant = self._key.grant_file(container.read_header(file).nonce_bytes, "trial")
        predictor = Predictor(self._loaded(reader, "Plaintext"), codec_with(self._cipher, "cpu"))
        size = file.stat().st_size + len(grant_line(grant))
        return [
            self._row("decrypt_then_infer", 0, figure, decrypted, reader, len(sealed) + 12),
            self._row("full_grant", 0, figure, lambda: predictor.read(file, grant).logits, reader, size),
        ]

    def _functional(self, number: int, folder: Path) -> Row:
        reader = self._plan.functional(self._source, number, self._seed)
        figure = self._trained(reader, f"functional keys, setting {number}")
        loaded = self._loaded(reader, "Functional")
        file = self._file(folder, max(loaded.size))
        predictor, key = FunctionalPredictor(loaded), grant_functional(file, self._key, loaded)

        def read() -> Tensor:
            answer = predictor.read(file, key)
            assert isinstance(answer, Answer)
            return answer.logits

        with container.opened_without_key(file) as opened:
            size = file.stat().st_size + len(opened.head) + len(key.to_bytes())
        return self._row("functional_key", key.count, figure, read, reader, size)

    def _row(
        self, model: str, numbers: int, figure: float, read: Callable[[], Tensor], reader: Reader, size: int
    ) -> Row:
        difference = float((read() - reader(self._images[:1])[0]).abs().max())
        times = []
        for _ in range(TIMED):
            started = time.perf_counter()
            read()
            times.append(time.perf_counter() - started)
        return Row(model, numbers, figure, 1e3 * min(times), size, difference)

    def _two_party(self) -> Row:
        interpreter()
        spec = self._source.spec
        widths = self._plan.backbone.get("settings", {}).get("widths", [32, 32])
        torch.manual_seed(self._seed)
        reader = Reader(StridedStem(spec.channels, 16), StridedNet(16, len(spec.classes), widths))
        figure = self._trained(reader, "two parties")
        network, weights = network_of(self._loaded(reader, "TwoParty"))
        levels = np.rint(self._images[:1].numpy() * (4095 / 255)).astype(np.uint32)
        mask = np.random.default_rng(0).integers(0, 1 << 32, levels.shape, dtype=np.uint32)
        self._tell("reading by two parties")
        found = read_here(network, {"ciphertext": levels + mask, **weights}, mask, READ)
        known = reader(torch.from_numpy(levels.astype(np.float32) * (255 / 4095))).numpy()
        return Row(
            "two_party", 0, figure, 1e3 * min(found.seconds[1:]), int(statistics.median(found.moved[1:])),
            float(np.abs(found.logits - known).max()),
        )  # fmt: skip

    def _homomorphic(self) -> Row:
        interpreter("tenseal")
        spec = self._source.spec
        if spec.channels != 1 or spec.height != spec.width:
            raise UsageError("homomorphic reading takes square grey images here")
        torch.manual_seed(self._seed)
        body = SquareNet(1, len(spec.classes), spec.height)
        reader = Reader(Levels(1, 1), body)
        figure = self._trained(reader, "homomorphic encryption")
        self._tell("reading under homomorphic encryption")
        found = homomorphically(body, self._images.numpy())
        difference = float((torch.tensor(found["logits"]) - reader(self._images)).abs().max())
        seconds, size = min(found["seconds"]), int(statistics.median(found["bytes"]))
        return Row("homomorphic", 0, figure, 1e3 * seconds, size, difference)


def homomorphically(body: SquareNet, images: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """What the program of TenSEAL's environment answers: `logits`, `seconds` and `bytes` of each image (N, 1, H, W).

    Raises:
        UsageError: There is no such environment, or the program failed.
    """
    convolution, linear, stream = body.convolution, body.linear, io.BytesIO()
    assert convolution.bias is not None
    np.savez(
        stream,
        images=images[:, 0] / 255.0 - 0.5,
        stride=np.array(STRIDE),
        kernel=convolution.weight[:, 0].numpy(),
        bias=convolution.bias.numpy(),
        linear=linear.weight.T.numpy(),
        offset=linear.bias.numpy(),
    )
    command = [str(interpreter("tenseal")), "-I", homomorphic.__file__]
    done = subprocess.run(command, input=stream.getvalue(), capture_output=True, timeout=PATIENCE_S, check=False)
    if done.returncode:
        raise UsageError(f"homomorphic reading failed: {done.stderr.decode(errors='replace')[-200:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def grant_line(grant: Grant) -> str:
    """The bytes that a host is sent."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "g")
        grant.save(path)
        return path.read_text()


def table(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The figures as aligned text."""
    lines = [f"{'model':<20}{'numbers':>8}{metric:>10}{'ms':>10}{'bytes':>12}{'logits differ':>15}"]
    lines += [
        f"{row['model']:<20}{row['numbers']:>8}{row['figure']:>10.4f}{row['milliseconds']:>10.1f}{row['moved']:>12,}"
        f"{row['difference']:>15.1e}"
        for row in rows
    ]
    return "\n".join(lines)


def metrics(rows: Sequence[Row], metric: str) -> dict[str, Any]:
    """Of the record."""
    return {"metric": metric, "rows": [row.told() for row in rows]}
