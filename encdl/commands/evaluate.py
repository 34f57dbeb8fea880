"""`encdl evaluate`: the figures of ciphers on a data set, beside classical repair, as a result record."""

from __future__ import annotations

import argparse
import itertools
import time

from encdl.commands.common import file_name, one_line_warnings
from encdl.utils.devices import usable_device
from encdl.utils.errors import UsageError
from encdl.utils.messages import progress, say, warn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments. Those that are settings have no default here, so that a file may give them."""
    parser.add_argument(
        "--config",
        type=file_name,
        metavar="YAML",
        help="settings, by the names of these options; options go before it; --recipe NAME takes EncDL's own, and "
        "--recipe alone lists them",
    )
    parser.add_argument(
        "--weights",
        action="extend",
        nargs="+",
        metavar="W",
        help="names or files of weights (default: those that come with EncDL); several of one cipher are its training "
        "seeds, ROW=W puts one into a row of another name",
    )
    parser.add_argument(
        "--data",
        metavar="D",
        help="embedded (MNI152 brain slices, the default), brain_tumor, acdc, a set of MedMNIST such as "
        "pneumoniamnist, a folder of images (all of them, each at its own size), one image, DICOM file or "
        "NIfTI volume (all its slices), or an .npz file",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="folder of a set that is not embedded (default: data)")
    parser.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="test images at the most, spread over patients (default: all of a folder or file, 100 of a set)",
    )
    parser.add_argument(
        "--group",
        choices=("file", "prefix", "folder"),
        help="what belongs together in a folder: nothing but the file (default), names alike up to the first _, "
        "sub-folders; intervals are over these",
    )
    parser.add_argument(
        "--tune-images",
        type=int,
        metavar="N",
        help="validation images that classical repair is tuned on (default: 12; 0: no tuning; a folder has none)",
    )
    parser.add_argument(
        "--repairs",
        nargs="+",
        metavar="R",
        help="classical repairs: median, decision_median, bm3d, telea, biharmonic (default: all)",
    )
    parser.add_argument(
        "--exact-images", type=int, metavar="N", help="images of 10 sizes tried for exactness (default: 200)"
    )
    parser.add_argument(
        "--statistics-images", type=int, metavar="N", help="images that the statistics are over (default: 20)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of keys and damage (default: 0)")
    parser.add_argument("--map", metavar="M", help="sequence behind the key planes (default: that of encryption)")
    parser.add_argument("--postprocess", metavar="P", help="after the network (default: that of encryption)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where to compute (default: auto)")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes for classical repair (default: 0, one a core)")
    parser.add_argument("-o", "--output", type=file_name, metavar="OUT", help="where to write the record (JSON)")
    parser.add_argument("--figure", type=file_name, metavar="PNG", help="draw all means with their intervals")
    parser.add_argument("--panel", type=file_name, metavar="PNG", help="draw one image after every damage and repair")
    parser.add_argument(
        "--earlier",
        type=file_name,
        nargs="+",
        default=[],
        metavar="RECORD",
        help="records of the same evaluation: their rows are taken over, unless W gives other weights for them",
    )
    parser.add_argument("--force", action="store_true", help="replace outputs that exist")


def run(args: argparse.Namespace) -> int:
    """Measure, print tables, write the record."""
    from encdl.audit import evaluation  # noqa: PLC0415
    from encdl.files.codecs import load_cipher  # noqa: PLC0415
    from encdl.utils import records  # noqa: PLC0415
    from encdl.utils.atomic import check_output, write_bytes  # noqa: PLC0415

    names = set(evaluation.Settings.__dataclass_fields__)
    settings = evaluation.read(args.config, {name: value for name, value in vars(args).items() if name in names})
    outputs = {"record": args.output, "figure": args.figure, "panel": args.panel}
    for output in outputs.values():
        if output is not None:
            check_output(output, args.force)
    for (one, first), (other, second) in itertools.combinations(outputs.items(), 2):
        if first and second and first.absolute() == second.absolute():
            raise UsageError(f"{second}: is named twice, for the {one} and for the {other}: give two names")
    started = time.monotonic()
    device = usable_device(settings.device)
    for name in evaluation.missing_repairs():
        warn(f"{name} is left out of the repairs: it needs scikit-image, which is not installed here")
    with one_line_warnings():
        earlier = [evaluation.read_earlier(path) for path in args.earlier]
        result = evaluation.evaluate(settings, lambda name: load_cipher(name, device), device, progress, earlier)
    say(f"{result.images.describe()}; PSNR in dB, 95 % intervals\n\n{evaluation.tables(result.metrics)}")
    if args.figure is not None:
        write_bytes(args.figure, evaluation.figure_png(result.metrics, result.images.describe()), force=args.force)
        say(f"figure: {args.figure}")
    if args.panel is not None:
        write_bytes(args.panel, evaluation.panel(result, settings.seed), force=args.force)
        say(f"panel: {args.panel}")
    if args.output is not None:
        content = evaluation.record(result, settings, args.config, args.output.stem, device, started)
        records.write(args.output, content, args.force)
        say(f"record: {args.output}")
    return 0
