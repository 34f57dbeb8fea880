"""Archives of public data sets, fetched by MONAI when a setting asks for it."""

from __future__ import annotations

import logging
import tarfile
import tempfile
from pathlib import Path
from urllib.error import URLError

from encdl.data.base import PURPOSE
from encdl.errors import DataError
from encdl.lazy import need


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
    apps = need("monai.apps.utils", PURPOSE)
    archive = folder.parent / address.rpartition("/")[2]
    logging.getLogger("monai.apps").setLevel(logging.CRITICAL)  # told by us, in one line
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        apps.download_url(address, archive, md5, "md5")
        # Unpacked beside and moved: a run that is stopped leaves no half of a data set.
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            apps.extractall(archive, place)  # noqa: S202  # MONAI refuses members that lead out of it
            Path(place, folder.name).rename(folder)
    except (URLError, OSError, RuntimeError, ValueError, tarfile.TarError, EOFError) as error:
        reason = " ".join(str(error).split())[:150]
        raise DataError(
            f"{folder}: fetching {address} failed ({reason}): fetch it by hand and unpack it into "
            f"{folder.parent}/, or remove {archive} if it is damaged"
        ) from error
