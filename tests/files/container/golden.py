"""Golden containers: made once, opened by every version after.

`python -m tests.files.container.golden` writes those that are new (tests/golden/containers/v3-*.encdl; v3-alone is the
first with a section `series`, which every file has since). EncDL
0.1 made old-1.encdl and old-2.encdl, of container versions 1 and 2, which this version names and does not open.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from encdl.ciphers import weights
from encdl.files.codec import Codec
from encdl.files.fitted import Fitted
from encdl.files.formats import Document
from encdl.files.levels import DEFAULT
from encdl.files.reading import Readable
from encdl.files.scans import Geometry
from encdl.files.settings import Settings
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec
from encdl.keys.recipients import RecipientKey
from encdl.keys.signing import SigningKey

FOLDER = Path(__file__).parents[2] / "golden" / "containers"
KEY = Key(hashlib.sha256(b"golden key").digest())
RECIPIENT = RecipientKey(hashlib.sha256(b"golden recipient key").digest())
SIGNER = SigningKey(hashlib.sha256(b"golden signing key").digest())


@dataclass(frozen=True)
class Golden:
    """One recorded file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    format: str
    settings: Settings = field(default_factory=Settings)
    rest: bytes = b""

    @property
    def array(self) -> np.ndarray[Any, Any]:
        count = int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize
        octets = hashlib.shake_256(self.name.encode()).digest(count)
        return np.frombuffer(octets, self.dtype).reshape(self.shape)

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.encdl"

    def document(self) -> Document:
        slices = 1 if self.layout.startswith("H") else self.shape[0]
        parts = self.array.reshape(slices, *self.shape[self.layout.index("H") :])
        return Document(self.shape, np.dtype(self.dtype), self.layout, self.format, self.rest, lambda: iter(parts))


RECORDED = (
    Golden("v3-grey", (9, 7), "uint8", "HW", "png", Settings(nonce="synthetic")),
    Golden("v3-volume", (3, 6, 5), "int16", "SHW", "dicom",
           Settings(postprocess="both", nonce="synthetic", study="S"), b"PatientName=Doe"),
    Golden("v3-colour", (2, 5, 4, 3), "float32", "SHWC", "nifti",
           Settings(PlaneSpec(map="chacha20"), "confusion", "synthetic"), bytes(range(256))),
    Golden("v3-plain", (12, 11), "uint16", "HW", "tiff",
           Settings(PlaneSpec(map="tent+chacha20"), "none", "synthetic")),
    Golden("v3-alone", (9, 8), "uint8", "HW", "png", Settings(PlaneSpec(map="chacha20"), "none", "synthetic")),
    Golden("v3-signed", (100, 90), "uint8", "HW", "png",
           Settings(PlaneSpec(map="chacha20"), nonce="synthetic", readable=Readable(9), signer=SIGNER,
                    identity="ward 3, scan 17")),
    Golden("v3-readable", (100, 90), "uint8", "HW", "png",
           Settings(PlaneSpec(map="chacha20"), nonce="synthetic", readable=Readable(9), signer=SIGNER)),
    Golden("v3-reader", (4, 6, 5), "int16", "SHW", "npy", Settings(
        nonce="synthetic", readable=Fitted((6, 7, 8), DEFAULT, Geometry("SPR", (1, 1, 0))))),
    Golden("v3-recipients", (11, 8), "uint8", "HW", "png", Settings(
        nonce="synthetic", recipients=(RecipientKey(bytes(32)).public, RECIPIENT.public))),
    Golden("v3-wrapped", (2, 6, 7), "uint8", "SHW", "nifti", Settings(
        PlaneSpec(map="chebyshev+chacha20"), "diffusion", "synthetic", "Étude", wrap="aes",
        recipients=(RECIPIENT.public,)), b"rest"),
)  # fmt: skip


def codec() -> Codec:
    """No file depends on the weights of a decryption network."""
    loaded = weights.load("default")
    return Codec(loaded.cipher, loaded.id)


def make(golden: Golden) -> bytes:
    stream = io.BytesIO()
    codec().encrypt(golden.document(), KEY, stream, golden.settings)
    return stream.getvalue()


if __name__ == "__main__":
    for golden in RECORDED:
        if not golden.path.exists():  # those that are there stay as some version wrote them
            golden.path.write_bytes(make(golden))
