"""Names of DICOM series that tell nothing but which files belong together: keyed hashes of SeriesInstanceUID."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Final

from encdl.files import container
from encdl.keys.derivation import hkdf
from encdl.keys.key import Opener
from encdl.utils.errors import WrongKeyError

TAG_BYTES: Final = 8


def tag_of(opener: Opener, series: str, study: str = "") -> bytes:
    """The tag of a series in a study.

    Raises:
        WrongKeyError: the opener is a grant for one file, or for another study.
    """
    secret = hkdf(opener.nonce_secret(study), b"encdl series")
    return hmac.digest(secret, series.encode(), hashlib.sha256)[:TAG_BYTES]


def name_of(opener: Opener) -> Callable[[str, Path], str]:
    """What names series for output files, with a file of each: by tags, or under a grant for one file plain hashes."""

    def name(series: str, path: Path) -> str:
        wrapping = container.read_wrapping(path)
        study = container.read_header(path).study if wrapping is None else wrapping.study
        try:
            return tag_of(opener, series, study).hex()
        except WrongKeyError:
            return hashlib.sha256(series.encode()).hexdigest()[: 2 * TAG_BYTES]

    return name
