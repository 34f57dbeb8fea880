"""`encdl inspect`: what containers say about themselves, without a key and therefore unverified."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from encdl.commands.common import file_name
from encdl.commands.key_options import add_key
from encdl.commands.many_files import Failures, counted, exit_code, is_batch, line, tell_of
from encdl.files import container
from encdl.files.container import VERSION, Header, aes_wrap
from encdl.files.container.header import SALVAGE
from encdl.files.container.sections import SERIES, Section
from encdl.files.folders import Left, gather
from encdl.keys.key import NO_KEY
from encdl.keys.planes import key_bits, weakness
from encdl.keys.signing import PublicKey
from encdl.utils.errors import ContainerError, EncdlError
from encdl.utils.messages import complain, say

if TYPE_CHECKING:
    from encdl.files.series_tags import SeriesTag

NOTE = ("note", "read without a key: not verified")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("paths", type=file_name, nargs="+", metavar="PATH", help=".encdl files; of folders a summary")
    parser.add_argument(
        "--verify-key",
        type=file_name,
        metavar="P",
        help="fail unless the owner of this public key (`encdl keygen --signing`) signed each file as it is",
    )
    add_key(
        parser,
        "tell also what is sealed in DICOM files and volumes: size, spacing, and defects of series",
        required=False,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a file, each on one line")


def run(args: argparse.Namespace) -> int:
    """Print each header, and of several files how many are alike; tell of files that are cut."""
    public = None if args.verify_key is None else PublicKey.load(args.verify_key)
    if is_batch(args.paths):
        return _many(args, public)
    _, problem = _show(args.paths[0], args.json, public)
    if problem is not None:
        raise problem
    return exit_code(_tell_scans(args, args.paths), 1)


def _many(args: argparse.Namespace, public: PublicKey | None) -> int:
    from encdl.files import file_names  # noqa: PLC0415

    left: list[Left] = []
    sources = gather(args.paths, file_names.is_encrypted, "encrypted file", left)
    undone = tell_of(left, "NOT inspected")
    failed, kinds, whole = 0, Counter[str](), list[Path]()
    for source in sources:
        # Files that are named are described, those of folders counted: a series has hundreds.
        shown = source.path in args.paths
        try:
            kind, problem = _show(source.path, args.json, public, shown)
            kinds[kind] += 1
        except EncdlError as error:
            problem = error
        if problem is not None:
            failed += 1
            complain(line(source.path, problem))
        else:
            whole.append(source.path)
        if shown and not args.json:
            say()
    if not args.json:
        for kind, count in kinds.items():
            say(f"{counted(count)}: {kind}")
        failed += _tell_scans(args, whole)
    return exit_code(failed, len(sources), undone)


def _tell_scans(args: argparse.Namespace, paths: Sequence[Path]) -> int:
    """Tell of series and volumes, without a key those of several files alone; how many files the key does not open."""
    from encdl.commands import scan_listing  # noqa: PLC0415

    failures = Failures()
    if args.json or (args.key is None and not is_batch(args.paths)):
        return 0
    for told in (
        scan_listing.without_key(paths) if args.key is None else scan_listing.with_key(paths, args.key, failures)
    ):
        say(told)
    return failures.count


def _show(path: Path, as_json: bool, public: PublicKey | None, described: bool = True) -> tuple[str, EncdlError | None]:
    """Print what the header says; what files of its kind share, and what is wrong with its length or signature."""
    wrapping = container.read_wrapping(path)
    if wrapping is not None:
        if public is not None:
            raise ContainerError(f"{path}: is wrapped in AES-256-GCM: without its key there is nothing to verify")
        if as_json or described:
            _show_wrapping(path, wrapping, as_json)
        return f"wrapped in AES-256-GCM, key {wrapping.key_id}, {_study(wrapping.study)}", None
    header = container.read_header(path)
    problem: EncdlError | None = None
    sections: tuple[Section, ...] = ()
    series: SeriesTag | None = None
    try:
        with container.opened_without_key(path) as reader:
            sections, shown = reader.sections, reader.section(SERIES)
            if shown is not None:
                from encdl.files.series_tags import SeriesTag  # noqa: PLC0415

                series = SeriesTag.from_bytes(shown)
            if public is not None:
                reader.check_signature(public)
            if reader.is_hit():
                raise ContainerError(f"{path}: its beginning was hit: {SALVAGE}")
    except ContainerError as error:
        problem = error
    size, ids = container.file_bytes(path), container.recipients_of(path)
    if as_json:
        extra = {
            "file": str(path),
            "recipients": ids,
            "version": VERSION,
            "file_bytes": size,
            "chunks": header.grid.count,
            "complete": bool(sections),
            "verified": public is not None and problem is None,
            "sections": [vars(section) for section in sections],
            "series": series and vars(series),
            "key_bits": key_bits(header.plane_spec(), header.grid.planes, *header.grid.tile),
        }
        say(json.dumps({**header.fields(), **extra}, sort_keys=True))
    elif described:
        rows = _describe(path, header, size, sections)
        if not sections:
            rows.insert(2, ("left", _left(path)))
        if series is not None:
            rows.append(("series", f"tag {series.tag}, number {series.number}"))
        rows += [("recipients", ", ".join(ids) or "none"), NOTE]
        if public is not None and problem is None:
            rows[-1] = ("note", f"as the owner of key {public.id} signed it")
        say("\n".join(f"{name:<14}{value}" for name, value in rows))
    return f"{_image(header)}, key {header.key_id}, {_study(header.study)}", problem


def _left(path: Path) -> str:
    """What is there of a cut file."""
    try:
        with container.opened_without_key(path, any_length=True) as reader:
            whole, share, sections = reader.left()
    except ContainerError:
        return "the header alone can be read"
    slices, share = reader.header.grid.slices, math.floor(1000 * share) / 10
    names = ", ".join(sections) or "none"
    return f"{whole} of {slices} slices in full, {share:.1f} % of the pixels; sections in full: {names}"


def _key_bits(header: Header) -> str:
    spec = header.plane_spec()
    bits = key_bits(spec, header.grid.planes, *header.grid.tile)
    return "; ".join([f"{bits} in the planes of a chunk", *weakness(spec).values()])


def _image(header: Header) -> str:
    return f"{'x'.join(str(length) for length in header.shape)} {header.dtype} ({header.layout})"


def _key(key_id: str) -> str:
    return "none: it was made for its recipients alone" if key_id == NO_KEY else key_id


def _study(name: str) -> str:
    return f"study {name!r}" if name else "no study"


def _show_wrapping(path: Path, wrapping: aes_wrap.Header, as_json: bool) -> None:
    size, ids = container.file_bytes(path), container.recipients_of(path)
    if as_json:
        public = {"key_id": wrapping.key_id, "nonce": wrapping.nonce.hex(), "study": wrapping.study}
        extra = {"file": str(path), "file_bytes": size, "wrap": "aes", "recipients": ids}
        say(json.dumps(public | extra, sort_keys=True))
        return
    rows = [
        ("file", str(path)),
        ("container", f"wrapped in AES-256-GCM, {size:,} bytes: all else is secret"),
        ("key", _key(wrapping.key_id)),
        ("study", repr(wrapping.study) if wrapping.study else "none"),
        ("nonce", wrapping.nonce.hex()),
        ("recipients", ", ".join(ids) or "none"),
        NOTE,
    ]
    say("\n".join(f"{name:<14}{value}" for name, value in rows))


def _describe(path: Path, header: Header, size: int, sections: tuple[Section, ...]) -> list[tuple[str, str]]:
    planes = ", ".join(f"{name} {value}" for name, value in sorted(header.planes.items()))
    grid = header.grid
    return [
        ("file", str(path)),
        ("container", f"version {VERSION}, {size:,} bytes, {'complete' if sections else 'NOT COMPLETE'}"),
        ("image", _image(header)),
        (
            "chunks",
            f"{grid.count:,} of up to {grid.tile[0]}x{grid.tile[1]}, {grid.slices:,} slice{'s' * (grid.slices != 1)}",
        ),
        ("sections", ", ".join(f"{section.name} {section.length:,} bytes" for section in sections)),
        ("cipher", f"{header.cipher}, weights {header.weights}"),
        ("key", _key(header.key_id)),
        ("study", repr(header.study) if header.study else "none"),
        ("nonce", header.nonce),
        ("key planes", planes),
        ("key bits", _key_bits(header)),
        ("postprocess", header.postprocess),
    ]
