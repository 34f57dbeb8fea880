"""The settings of an evaluation: from a YAML file, from the command line, or as they are by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from encdl.data.splits import Group
from encdl.metrics.classical_repair import KINDS, REPAIRS
from encdl.utils import settings
from encdl.utils.errors import UsageError

LEAST = {"images": 1, "exact_images": 1, "statistics_images": 1, "tune_images": 0, "jobs": 0, "seed": 0}
"""The smallest value of each number."""


@dataclass(frozen=True)
class Settings:
    """What is measured, on what, and how.

    Attributes:
        weights: Weights by row; several of one row are training seeds of one cipher. Each is a file or a name, and the
            row is the cipher's name unless `ROW=` stands in front.
        data: Name of the images, as `encdl.data.registry.open_data` takes it.
        data_dir: The folder of a set that is not embedded.
        images: Test images at the most; None: all of a folder, 100 of a set.
        group: What belongs together in a folder: nothing but the file, files whose names start alike, a sub-folder.
        tune_images: Validation images that the parameters of classical repairs are chosen by; 0 leaves the defaults.
        repairs: Classical repairs; None: all that can run.
        exact_images: Images of ten sizes that exactness is tried on.
        statistics_images: Images that statistics and differential figures are over.
        seed: Of keys and damage.
        map: Sequence behind the key planes; "" for the default.
        postprocess: Post-processing of the stored ciphertext; "" for the default.
        device: auto, cpu or cuda.
        jobs: Processes that repair; 0 for one a core.

    Raises:
        UsageError: A value is out of its range.
    """

    weights: list[str] = field(default_factory=lambda: ["default"])
    data: str = "embedded"
    data_dir: str | None = None
    images: int | None = None
    group: Group = "file"
    tune_images: int = 12
    repairs: list[str] | None = None
    exact_images: int = 200
    statistics_images: int = 20
    seed: int = 0
    map: str = ""
    postprocess: str = ""
    device: str = "auto"
    jobs: int = 0

    def __post_init__(self) -> None:
        settings.check_numbers(self, LEAST, optional=("images",))
        settings.check_choice(self, "group", get_args(Group))
        settings.check_choice(self, "device", ("auto", "cpu", "cuda"))
        known = list(dict.fromkeys(name for kind in KINDS for name in REPAIRS[kind]))
        for name in self.repairs or ():
            if name not in known:
                raise UsageError(f"--repairs: there is no {name}: give some of {', '.join(known)}")
        if not self.weights or not all(isinstance(name, str) and name for name in self.weights):
            raise UsageError("no weights: give --weights default, or a file, or several")

    def to_dict(self) -> dict[str, Any]:
        """As plain values, which `read` takes."""
        return asdict(self)


def read(path: Path | None, given: Mapping[str, Any]) -> Settings:
    """Settings from a file and from the command line, which goes before.

    Args:
        path: A YAML file of some of the settings.
        given: Settings by name; None where the user gave none.

    Raises:
        UsageError: The file is none, or a setting is unknown or out of its range.
    """
    content = settings.content(Settings, path, "an evaluation")
    if isinstance(rows := content.get("weights"), Mapping):
        content["weights"] = [f"{row}={name}" for row, names in rows.items() for name in _list(path, row, names)]
    for name in ("weights", "repairs"):
        if isinstance(content.get(name), str):
            content[name] = [content[name]]
    return settings.filled(Settings, path, content, given)


def _list(path: Path | None, row: str, names: Any) -> list[str]:
    found = [names] if isinstance(names, str) else names
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise UsageError(f"{path}: weights of {row}: give a file or a list of files")
    return found
