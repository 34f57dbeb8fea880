"""`encdl samples`: images to try the other verbs on, for who has none at hand."""

from __future__ import annotations

import argparse

from encdl.commands.common import file_name
from encdl.utils import atomic
from encdl.utils.errors import UsageError
from encdl.utils.messages import say

LESIONS = "synthetic-lesion"
FOLDERS = ("no-lesion", LESIONS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "folder",
        type=file_name,
        metavar="FOLDER",
        help=f"where they go, into the sub-folders {' and '.join(FOLDERS)}; made if it is not there",
    )
    parser.add_argument("--count", type=int, default=8, metavar="N", help="how many images (default: 8, at most 40)")
    parser.add_argument("--force", action="store_true", help="replace the images if they exist")


def run(args: argparse.Namespace) -> int:
    """Draw the images and write them."""
    from encdl.data.lesions import most_samples, sample_slices  # noqa: PLC0415
    from encdl.files import images  # noqa: PLC0415

    if not 1 <= args.count <= most_samples():
        raise UsageError(f"--count {args.count}: must be from 1 to {most_samples()}")
    pictures = {}
    for index, lesion, image in sample_slices(args.count):
        name = f"slice-{index:03}-{LESIONS}.png" if lesion else f"slice-{index:03}.png"
        pictures[args.folder / FOLDERS[lesion] / name] = image
    for path in pictures:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.check_output(path, args.force)
    for path, image in pictures.items():
        images.write(path, image, force=args.force)
    say(
        f"{args.folder}: {args.count} image{'s' * (args.count != 1)} of the MNI152 brain, {args.count // 2} with "
        "a SYNTHETIC lesion (drawn by EncDL: no disease)"
    )
    return 0
