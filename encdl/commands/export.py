"""`encdl export`: a small file of what a training checkpoint holds: a reader, or a cipher's weights."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from encdl.commands.common import FORCE, OUTPUT
from encdl.utils.errors import OutputExistsError, UsageError, WeightsError
from encdl.utils.messages import say, warn

if TYPE_CHECKING:
    from encdl.readers import LoadedReader

CHECKPOINT, BUNDLE = ".pt", ".bundle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("checkpoint", help="checkpoint of a training run (.ckpt)")
    parser.add_argument("-o", "--output", **OUTPUT, required=True, help="file to write")
    parser.add_argument("--force", **FORCE)
    parser.epilog = (
        "The ending of OUT says what is written. .pt: a cipher's weights, or a reader with its cipher, without what "
        "training needs: the other verbs take it as they take the checkpoint. .onnx, .pt2 (torch.export) and .ts "
        "(TorchScript): the reader alone, for other programs; it is run and compared before it is written. .bundle: a "
        "folder, a MONAI bundle with the reader's network in TorchScript, which reads decrypted images, or encrypted "
        "ones by `encdl predict --bundle`."
    )


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    from encdl import readers  # noqa: PLC0415
    from encdl.ciphers import weights  # noqa: PLC0415
    from encdl.readers.export import FORMATS, exported  # noqa: PLC0415
    from encdl.utils.atomic import check_output, different_files, write_bytes  # noqa: PLC0415

    output, source = check_output(args.output, args.force), Path(args.checkpoint)
    different_files(output, source)
    kind = output.suffix
    if kind not in {CHECKPOINT, BUNDLE, *FORMATS}:
        raise UsageError(
            f"{output}: nothing is exported as {kind or 'a file without ending'}: give .pt, .onnx, .pt2, .ts or .bundle"
        )
    loaded = weights.load(args.checkpoint)
    try:
        reader = readers.load(source)
    except readers.NoReaderError:
        reader = None
    told = f"{loaded.cipher.name}, weights {loaded.id}"
    if kind in {BUNDLE, *FORMATS} and reader is None:
        raise WeightsError(f"{source}: holds a cipher ({told}) and no reader: export it as .pt")
    if kind == BUNDLE:
        assert reader is not None
        return _write_bundle(output, reader)
    if kind in FORMATS:
        assert reader is not None
        content = exported(reader, kind)
    elif reader is not None:
        content = readers.slim(source)
    else:
        small = io.BytesIO()
        weights.save(loaded.cipher, small, weights.without_places(loaded.training))
        content = small.getvalue()
    write_bytes(output, content, force=args.force)
    what = told if reader is None else f"reader {reader.reader.backbone.title}, view {reader.view}, of {told}"
    say(f"{output}: {what}, {output.stat().st_size / 1e3:.0f} kB")
    return 0


def _write_bundle(folder: Path, reader: LoadedReader) -> int:
    """A folder is made as a whole, or not at all."""
    from encdl.readers import bundle_export, bundles  # noqa: PLC0415

    if folder.exists():
        raise OutputExistsError(f"{folder}: is there already: give another name, or remove it first")
    if others := bundle_export.rule_of(reader)[1]:
        warn(
            f"{folder}: a bundle knows no modality, and takes all images by one rule of levels; `encdl predict` has "
            f"others for {others}: train with one rule (data.levels) if that matters"
        )
    inference, metadata = bundle_export.inference(reader), bundle_export.metadata(reader)
    readme = bundle_export.README.format(title=metadata["name"], view=reader.view)
    model = bundle_export.torchscript(reader)
    with TemporaryDirectory(dir=folder.absolute().parent) as temporary:
        made = Path(temporary, folder.name)
        bundles.write_bundle(made, metadata, inference, model, readme)
        made.rename(folder)
    say(f"{folder}: MONAI bundle of {metadata['name']}, view {reader.view}")
    return 0
