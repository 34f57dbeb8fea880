"""`encdl samples`: pictures to try the other verbs on, for who has none at hand."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from encdl.utils import atomic
from encdl.utils.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

LESIONS = "synthetic-lesion"
FOLDERS = ("no-lesion", LESIONS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help=f"where they go, into the sub-folders {' and '.join(FOLDERS)}; made if it is not there",
    )
    parser.add_argument(
        "--count", type=int, default=8, metavar="N", help="how many pictures (default: 8, at most 40)"
    )
    parser.add_argument("--force", action="store_true", help="replace the pictures if they exist")


def run(args: argparse.Namespace) -> int:
    """Draw the pictures and write them."""
    from encdl.data.embedded import SLABS  # noqa: PLC0415
    from encdl.files import images  # noqa: PLC0415

    held_out = [index for split in ("val", "test") for slab in SLABS[split] for index in slab]
    if not 1 <= args.count <= 2 * len(held_out):
        raise UsageError(f"--count {args.count}: must be from 1 to {2 * len(held_out)}")
    slices = (args.count + 1) // 2
    drawn = _pictures([held_out[number * len(held_out) // slices] for number in range(slices)])
    pictures = {args.folder / name: picture for name, picture in islice(drawn, args.count)}
    for path in pictures:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.check_output(path, args.force)
    for path, picture in pictures.items():
        images.write(path, picture, force=args.force)
    print(
        f"{args.folder}: {args.count} picture{'s' * (args.count != 1)} of the MNI152 brain, {args.count // 2} with "
        "a SYNTHETIC lesion (drawn by EncDL: no disease)"
    )
    return 0


def _pictures(indices: list[int]) -> Iterator[tuple[Path, np.ndarray]]:
    """Each slice without and with a lesion, uint8 (96, 80), behind the name that it gets."""
    import numpy as np  # noqa: PLC0415

    from encdl.data.embedded import axial_slice, volume  # noqa: PLC0415
    from encdl.data.lesions import draw_lesion, half, sites_in  # noqa: PLC0415

    t1, white = volume("t1"), volume("white")
    for index in indices:
        picture, sites = half(axial_slice(t1, index)), sites_in(axial_slice(white, index))
        lesion = draw_lesion(picture, sites, np.random.RandomState(index))
        yield Path(FOLDERS[0], f"slice-{index:03}.png"), picture[0]
        yield Path(FOLDERS[1], f"slice-{index:03}-{LESIONS}.png"), lesion[0]
