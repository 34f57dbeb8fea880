"""`encdl predict --bundle`: a MONAI bundle's own inference workflow on encrypted files."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import encdl
from encdl.commands.common import file_name, open_key
from encdl.files import container, file_names, folders, stores
from encdl.files.folders import Left, gather
from encdl.utils.errors import EncdlError, OutputExistsError, UsageError
from encdl.utils.messages import say

OF_READERS = ("masks", "overlay", "window", "any_size", "functional_key", "keyserver", "two_party")
"""Options that a bundle has no use for: its own transforms decide."""
SERIES = "dicom"


def add_arguments(parser: argparse.ArgumentParser, network: Any) -> None:
    """Declare what a bundle takes, beside what a reader takes."""
    network.add_argument(
        "--bundle",
        type=file_name,
        metavar="FOLDER",
        help="instead of a reader: a MONAI bundle, whose inference workflow runs as it is on what the key opens, "
        "decrypted in memory. A bundle is code: run none that you would not run as a program",
    )
    parser.add_argument(
        "--local-classes",
        action="store_true",
        help="with --bundle: let its configs import modules of its own folder, such as scripts",
    )


def run(args: argparse.Namespace) -> int:
    """Give the bundle all images at once; what it writes goes below the output folder."""
    from encdl.readers.bundles import run_bundle  # noqa: PLC0415
    from encdl.training import recipe_code  # noqa: PLC0415

    given = [name for name in OF_READERS if getattr(args, name)]
    if given:
        raise UsageError(f"--{given[0].replace('_', '-')} is for readers: a bundle's own transforms decide")
    if args.output is None:
        raise UsageError("a bundle writes files: give a folder for them with --output")
    for path in (args.output, *args.paths):
        stores.on_disk(path, "a bundle reads and writes files")
    folders.check_folder(args.output, "what the bundle writes goes")
    if args.output.is_dir() and any(args.output.iterdir()) and not args.force:
        raise OutputExistsError(f"{args.output}: is not empty: give another folder, or --force")
    opener = open_key(args.key)
    reader = encdl.EncdlReader(opener, weights=args.weights)
    images = _images(args.paths, opener, reader)
    made = not args.output.is_dir()
    args.output.mkdir(exist_ok=True)
    device = None if args.device == "auto" else args.device
    if args.local_classes:
        sys.path.insert(0, str(args.bundle.resolve()))
    with recipe_code.installed_only(args.local_classes, bundle=args.bundle) as refused:
        try:
            run_bundle(args.bundle, images, reader, args.output.resolve(), device)
        except EncdlError as error:
            if made and not any(args.output.iterdir()):
                args.output.rmdir()
            if not refused and type(error) is UsageError and _takes_slices(args.bundle) and _several(images):
                raise UsageError(
                    f"{error}. By its metadata the network takes single slices: give files of one slice each, or the "
                    "checkpoint with --reader"
                ) from None
            raise refused[0] if refused else error from None
    several = f"{len(images)} image{'s' * (len(images) != 1)}"
    say(f"{args.output}: {several} read by the bundle {args.bundle.resolve().name}")
    return 0


def _images(paths: list[Path], opener: Any, reader: Any) -> list[Path]:
    """Encrypted files; a folder of encrypted DICOM slices is one image, or one for each of its scans."""
    found: list[Path] = []
    left: list[Left] = []
    for path in paths:
        files = [source.path for source in gather([path], file_names.is_encrypted, f"{container.SUFFIX} file", left)]
        flat = path.is_dir() and len(files) > 1 and all(file.parent == path for file in files)
        if flat and _format(files[0], opener) == SERIES:
            scans = reader.scans(path)
            found += [scan.path for scan in scans] if len(scans) > 1 else [path]
        else:
            found += files
    return [path.resolve() for path in found]


def _takes_slices(bundle: Path) -> bool:
    """Whether the metadata say that images have two axes."""
    from encdl.readers.bundles import METADATA  # noqa: PLC0415

    try:
        inputs = json.loads((bundle / "configs" / METADATA).read_text())["network_data_format"]["inputs"]
        return all(len(each["spatial_shape"]) == 2 for each in inputs.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # metadata of another kind


def _several(images: list[Path]) -> bool:
    """Whether one of the images has several slices."""
    for path in images:
        if not path.is_file():
            return True
        with container.opened_without_key(path) as reader:
            if reader.header.grid.slices > 1:
                return True
    return False


def _format(path: Path, opener: Any) -> str:
    with container.opened(path, opener) as reader:
        return "" if reader.metadata is None else reader.metadata.format
