"""Files of public data sets, fetched by MONAI when the user asks for them."""

from __future__ import annotations

import logging
import tarfile
import tempfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

from encdl.utils.errors import DataError

FAILURES = (URLError, OSError, RuntimeError, ValueError)
"""Errors that a download raises beside its own."""


def fetch_file(address: str, md5: str, file: Path) -> None:
    """Fetch one file and check it; nothing is left where that fails.

    Raises:
        DataError: It cannot be fetched or written, or is not what it should be.
    """
    try:
        _download(address, md5, file)
    except FAILURES as error:
        file.unlink(missing_ok=True)
        raise DataError(
            f"{file}: fetching {address} failed ({_reason(error)}): fetch it by hand into {file.parent}/"
        ) from error


def fetch(address: str, md5: str, folder: Path) -> None:
    """Fetch a tar archive of the folder's name beside it, check it, and unpack the folder, whole or not at all.

    An archive that is there already is used.

    Args:
        address: Where it is.
        md5: Its checksum.
        folder: The result, `PLACE/NAME`; the archive holds a folder NAME.

    Raises:
        DataError: It cannot be fetched or written, or is not what it should be.
    """
    archive = folder.parent / address.rpartition("/")[2]
    try:
        apps = _download(address, md5, archive)
        # Unpacked beside and moved: a run that is stopped leaves no half of a data set.
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            apps.extractall(archive, place)  # noqa: S202  # MONAI refuses members that lead out of it
            Path(place, folder.name).rename(folder)
    except (*FAILURES, tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{folder}: fetching {address} failed ({_reason(error)}): fetch it by hand and unpack it into "
            f"{folder.parent}/, or remove {archive} if it is damaged"
        ) from error


def _download(address: str, md5: str, file: Path) -> Any:
    """Fetch `file` unless it is there, and check it; gives MONAI's module of such functions."""
    from monai.apps import utils as apps  # noqa: PLC0415

    logging.getLogger("monai.apps").setLevel(logging.CRITICAL)  # told by us, in one line
    file.parent.mkdir(parents=True, exist_ok=True)
    apps.download_url(address, file, md5, "md5")
    return apps


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:150]
