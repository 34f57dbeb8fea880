"""`encdl export`: a small file of what a training checkpoint holds: a reader, or a cipher's weights."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from encdl.commands.common import add_output
from encdl.utils.errors import UsageError, WeightsError
from encdl.utils.messages import say

CHECKPOINT = ".pt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("checkpoint", help="checkpoint of a training run (.ckpt)")
    add_output(parser, "")
    parser.epilog = (
        "The ending of OUT says what is written. .pt: a cipher's weights, or a reader with its cipher, without what "
        "training needs: the other verbs take it as they take the checkpoint. .onnx and .pt2 (torch.export): the "
        "reader alone, for other programs; it is run and compared before it is written."
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
    if kind not in {CHECKPOINT, *FORMATS}:
        raise UsageError(f"{output}: nothing is exported as {kind or 'a file without ending'}: give .pt, .onnx or .pt2")
    loaded = weights.load(args.checkpoint)
    try:
        reader = readers.load(source)
    except readers.NoReaderError:
        reader = None
    told = f"{loaded.cipher.name}, weights {loaded.id}"
    if kind in FORMATS:
        if reader is None:
            raise WeightsError(f"{source}: holds a cipher ({told}) and no reader: export it as .pt")
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
