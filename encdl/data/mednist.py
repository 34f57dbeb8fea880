"""MedNIST: 58,954 small images of six kinds, a sanity check for classifiers.

The kinds are abdomen CT, breast MRI, chest CT, chest X-ray, hand and head CT; it takes little to tell them apart.
Nobody knows who is in which image, so a patient may be in two splits.

Source: gathered by B. J. Erickson (Mayo Clinic) from TCIA, the RSNA bone age challenge and the NIH chest X-ray set,
CC BY-SA 4.0.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path

from encdl.data.base import DATA_SETS, Split
from encdl.data.class_folder import ClassFolder
from encdl.data.download import fetch
from encdl.files.scan_files import Unit
from encdl.utils.errors import DataError

NAME = "MedNIST"


@DATA_SETS.register("mednist")
@dataclass(eq=False, repr=False)
class MedNIST(ClassFolder):
    """MedNIST as MONAI's tutorials use it: grey images of 64 x 64 pixels in six classes.

    Args:
        data_dir: The folder that holds `MedNIST`.
        download: Fetch it (59 MB) from MONAI's server if it is not there.
        size: Height and width of every image.

    Raises:
        UsageError: A number is out of its range.
    """

    data_dir: str = "data"
    _: KW_ONLY
    download: bool = False
    folder: str = field(default="", init=False)
    size: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        self.folder = str(Path(self.data_dir, NAME))

    def prepare_data(self) -> None:
        """Fetch the images if that is asked for; Lightning calls it in one process."""
        if not self.root.is_dir() and self.download:
            from monai.apps import MedNISTDataset  # noqa: PLC0415

            fetch(MedNISTDataset.resource, MedNISTDataset.md5, self.root)

    @cached_property
    def units(self) -> dict[Split, list[Unit]]:
        """The images of each split, in a fixed order.

        Raises:
            DataError: They are not there, and cannot or should not be fetched.
        """
        self.prepare_data()
        if not self.root.is_dir():
            from monai.apps import MedNISTDataset  # noqa: PLC0415

            address = MedNISTDataset.resource
            raise DataError(
                f"{self.root}: no such folder: set data.init_args.download to true (ARGS='--data.init_args.download "
                f"true' with make), or fetch {address} and unpack "
                f"it into {self.data_dir}/, or set data.init_args.data_dir (DATA_DIR=... with make)"
            )
        return super().units
