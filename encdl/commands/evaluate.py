"""`encdl evaluate`: the figures of a cipher on a data set, as a result record."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from encdl.commands.common import add_cipher, add_map, load_cipher, progress
from encdl.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_cipher(parser, "default: the weights that come with EncDL")
    parser.add_argument(
        "--data",
        default="embedded",
        metavar="D",
        help="embedded (MNI152 brain slices, the default), a folder of images, or an .npz file",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="where to write the record (JSON)")
    parser.add_argument(
        "--panel", type=Path, metavar="PNG", help="draw what the cipher does to three test images"
    )
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="how many sets of keys (default: 3)"
    )
    parser.add_argument(
        "--images", type=int, default=10, metavar="N", help="test images at the most (default: 10)"
    )
    parser.add_argument(
        "--exact-images",
        type=int,
        default=200,
        metavar="N",
        help="images of 10 sizes tried for exactness (default: 200)",
    )
    add_map(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print a table, write the record."""
    from encdl import evaluation, records  # noqa: PLC0415
    from encdl.atomic import check_output, write_bytes  # noqa: PLC0415
    from encdl.data.named import test_images  # noqa: PLC0415
    from encdl.keys.planes import PlaneSpec  # noqa: PLC0415

    for name in ("seeds", "images", "exact_images"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    for output in (args.output, args.panel):
        if output is not None:
            check_output(output, args.force)
    if args.output and args.panel and args.output.absolute() == args.panel.absolute():
        raise UsageError(f"{args.output}: is named twice, for the record and for the panel: give two names")
    started = time.monotonic()
    loaded = load_cipher(args.weights or "default", args.device)
    device = str(next(loaded.cipher.parameters()).device)
    spec = PlaneSpec(map=args.map, planes=loaded.cipher.planes)
    images = test_images(args.data, args.images)
    figures = [
        evaluation.Evaluation(loaded.cipher, spec, device, seed).figures(images, args.exact_images, progress)
        for seed in range(args.seeds)
    ]
    metrics = evaluation.per_seed(figures)
    print(table(loaded.cipher.name, loaded.id, metrics))
    if args.panel is not None:
        drawn = evaluation.Evaluation(loaded.cipher, spec, device, seed=0).panel(images)
        write_bytes(args.panel, drawn, force=args.force)
        print(f"panel: {args.panel}")
    if args.output is not None:
        content = records.record(
            args.output.stem,
            "evaluate",
            config=None,
            dataset=f"{args.data}, {len(images)} test images",
            seeds=range(args.seeds),
            metrics=metrics,
            wall_s=time.monotonic() - started,
            device=device,
            cipher=loaded.cipher.name,
            weights=loaded.id,
            planes=spec.to_dict(),
            training=loaded.training,
        )
        records.write(args.output, content, args.force)
        print(f"record: {args.output}")
    return 0


def table(cipher: str, weights: str, metrics: dict[str, Any]) -> str:
    """The figures as aligned text."""
    rows = [
        ("decrypted exactly", f"{metrics['exact_fraction']:.1%} of images"),
        (
            "wrong key",
            f"{metrics['wrong_key_psnr_db']:.1f} dB (the mean image: {metrics['mean_image_psnr_db']:.1f} dB)",
        ),
        *(
            (f"restored after {name.replace('_', ' ').replace('pct', ' %')}", f"{value:.1f} dB")
            for name, value in metrics["restored_psnr_db"].items()
        ),
        (
            "content activity",
            f"{metrics['content_activity']:.3f} (neighbouring images {metrics['content_activity_neighbour']:.3f}, "
            f"unrelated ones {metrics['content_activity_unrelated']:.3f}; 0: a pure keystream)",
        ),
    ]
    for name, value in metrics["entropy_bits"].items():
        rows.append(
            (
                f"{name.replace('_', ' ')}",
                f"entropy {value:.4f} bits, correlation {metrics['adjacent_correlation'][name]:.4f}, "
                f"NPCR {metrics['npcr_pct'][name]:.2f} %, UACI {metrics['uaci_pct'][name]:.2f} %",
            )
        )
    width = max(len(label) for label, _ in rows)
    return "\n".join(
        [f"{cipher} (weights {weights})", *(f"  {label:<{width}}  {value}" for label, value in rows)]
    )
