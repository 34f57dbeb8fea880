"""How files are encrypted, and what becomes of damaged ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from encdl.ciphers.names import POSTPROCESS
from encdl.files.container.metadata import MAX_IDENTITY_BYTES, is_identity
from encdl.keys.derivation import check_study
from encdl.keys.planes import PlaneSpec
from encdl.keys.recipients import RecipientPublicKey
from encdl.keys.signing import SigningKey
from encdl.utils.errors import UsageError

if TYPE_CHECKING:
    from encdl.files.fitted import Fitted
    from encdl.files.reading import Readable

NonceMode = Literal["random", "synthetic"]
Wrapping = Literal["none", "aes"]
NONCE_MODES: tuple[NonceMode, ...] = ("random", "synthetic")


@dataclass
class Salvage:
    """The treatment of damaged slices, and which they were.

    Attributes:
        restore: guess them with the cipher's decryption network; if not, what is damaged stays zero.
        damaged: slices of which a part was damaged or missing, counted from 0; known once all slices were read.
    """

    restore: bool = True
    damaged: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """How to encrypt.

    Attributes:
        planes: how to make the key planes; as many as the cipher takes.
        postprocess: a name of `encdl.ciphers.names.POSTPROCESS`.
        nonce: "random", or "synthetic": from a keyed hash of the content and of all settings, so that one changed
            pixel changes every key plane. Equal content then gives equal files, which shows that it is equal.
        study: name of the study that the file belongs to.
        wrap: "aes" to seal the finished container in AES-256-GCM (`encdl.files.container.aes_wrap`), "none" to leave
            it.
        readable: how to make a reading layer, for hosts without a key (`encdl.files.reading`); None for no layer.
        signer: what signs the file, so that those without its key can tell whether it was changed.
        series: let those without the key see which files are of one DICOM series, and their order
            (`encdl.files.series_tags`).
        recipients: to whose keys the file's secret is sealed, so that they open it too.
        identity: what the owner calls the file; sealed, and bound to it.
    """

    planes: PlaneSpec = field(default_factory=PlaneSpec)
    postprocess: str = POSTPROCESS[0]
    nonce: NonceMode = "random"
    study: str = ""
    wrap: Wrapping = "none"
    readable: Readable | Fitted | None = None
    signer: SigningKey | None = None
    series: bool = True
    recipients: tuple[RecipientPublicKey, ...] = ()
    identity: str = ""

    def __post_init__(self) -> None:
        """Raise `UsageError` on settings that are not known, or do not go together."""
        if self.postprocess not in POSTPROCESS:
            raise UsageError(
                f"post-processing {self.postprocess!r} does not exist: use one of {', '.join(POSTPROCESS)}"
            )
        check_study(self.study)
        if not is_identity(self.identity):
            raise UsageError(
                f"an identity is up to {MAX_IDENTITY_BYTES:,} bytes, without control characters: change it"
            )
        if self.nonce not in NONCE_MODES:
            raise UsageError(f"nonce {self.nonce!r} is not known: use {' or '.join(NONCE_MODES)}")
        if self.wrap not in ("none", "aes"):
            raise UsageError(f"wrap {self.wrap!r} is not known: use aes or none")
        if self.wrap == "aes" and (self.readable or self.signer):
            raise UsageError("inside --wrap aes nobody without the key sees a reading layer or signature: leave it out")
