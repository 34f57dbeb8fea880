"""MedMNIST: twelve sets of small medical images with labels, by the name of each.

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


@dataclass(eq=False, repr=False)
class MedMNIST(NpzImages):
    """One of MedMNIST's sets of flat images with one label each, such as `pneumoniamnist`.

    The file is read from `data_dir`. If it is not there and the package `medmnist` is installed
    (`pip install 'encdl[medmnist]'`), it is fetched from where that says, and checked. The package also knows the
    classes' names; without it, and without `class_names`, they are numbers. The grades of `retinamnist` are taken as
    classes.

    Args:
        name: Name of the set, in small letters.
        data_dir: The folder of the file.
        class_names: Names of the classes, in place of the package's.
        size: Height and width of an image; those above 28 are MedMNIST+'s.

    Raises:
        UsageError: There is no such set, it has volumes or several labels an image, or a number is out of its range.
    """

    _: KW_ONLY
    name: str
    size: Literal[28, 64, 128, 224] = 28
    file: str = field(default="", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name not in NAMES:
            kind = " with one label an image" if self.name == "chestmnist" else ""
            kind = " of flat images" if self.name.endswith("3d") else kind
            raise UsageError(f"MedMNIST has no set {self.name}{kind}: give one of {', '.join(NAMES)}")
        self.file = f"{self.name}.npz" if self.size == 28 else f"{self.name}_{self.size}.npz"

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
