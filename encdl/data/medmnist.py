"""MedMNIST: sets of small medical images and volumes with labels, by the name of each.

Source: MedMNIST v2 (Yang et al. 2023, Scientific Data 10, 41), doi.org/10.5281/zenodo.10519652, CC BY 4.0 but for
DermaMNIST (CC BY-NC 4.0). By its authors' word not for clinical use.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from importlib.util import find_spec
from typing import Literal

from encdl.data.download import fetch_file
from encdl.data.npz import MEDMNIST, NpzImages
from encdl.utils.errors import DataError, UsageError

NAMES = (
    *("bloodmnist", "breastmnist", "dermamnist", "octmnist", "organamnist", "organcmnist", "organsmnist"),
    *("pathmnist", "pneumoniamnist", "retinamnist", "tissuemnist"),
)

NAMES_3D = tuple(f"{name}mnist3d" for name in ("adrenal", "fracture", "nodule", "organ", "synapse", "vessel"))
"""MedMNIST3D's: volumes."""
SIZES_3D = (28, 64)


@dataclass(eq=False, repr=False)
class MedMNIST(NpzImages):
    """One of MedMNIST's sets of images or volumes with one label each, such as `pneumoniamnist` or `organmnist3d`.

    The file is read from `data_dir`. If it is not there and the package `medmnist` is installed
    (`pip install 'encdl[medmnist]'`), it is fetched from where that says, and checked. The package also knows the
    classes' names; without it, and without `class_names`, they are numbers. The grades of `retinamnist` are taken as
    classes.

    Args:
        name: Name of the set, in small letters.
        data_dir: The folder of the file.
        class_names: Names of the classes, in place of the package's.
        size: Height and width of an image, and depth of a volume; those above 28 are MedMNIST+'s. Volumes have 28 or
            64.

    Raises:
        UsageError: There is no such set, it has several labels an image, or a number is out of its range.
    """

    _: KW_ONLY
    name: str
    size: Literal[28, 64, 128, 224] = 28
    file: str = field(default="", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name not in NAMES + NAMES_3D:
            kind = " with one label an image" if self.name == "chestmnist" else ""
            raise UsageError(f"MedMNIST has no set {self.name}{kind}: give one of {', '.join(NAMES + NAMES_3D)}")
        if self.of_volumes and self.size not in SIZES_3D:
            raise UsageError(f"MedMNIST has no volumes of size {self.size}: give {' or '.join(map(str, SIZES_3D))}")
        self.file = f"{self.name}.npz" if self.size == 28 else f"{self.name}_{self.size}.npz"

    @property
    def of_volumes(self) -> bool:
        """Whether it is one of MedMNIST3D's."""
        return self.name in NAMES_3D

    def prepare_data(self) -> None:
        """Fetch the file if it is not there; Lightning calls it in one process.

        Raises:
            DataError: It cannot be fetched.
        """
        if self.path.is_file():
            return
        if not find_spec("medmnist"):
            raise DataError(
                f"{self.path}: no such file: pip install medmnist to have it fetched, or "
                f"{MEDMNIST.format(file=self.file)} into {self.data_dir}/, or set data.init_args.data_dir "
                "(DATA_DIR=... with make)"
            )
        # The package would need torchvision to fetch anything; it knows the addresses, and MONAI fetches.
        from medmnist import INFO  # noqa: PLC0415

        known, flag = INFO[self.name], self.file.removeprefix(self.name)[:-4]
        fetch_file(known[f"url{flag}"], known[f"MD5{flag}"], self.path)

    def _named(self) -> tuple[str, ...]:
        if self.class_names or not find_spec("medmnist"):
            return super()._named()
        from medmnist import INFO  # noqa: PLC0415

        labels: dict[str, str] = INFO[self.name]["label"]
        return tuple(labels[str(number)] for number in range(len(labels)))
