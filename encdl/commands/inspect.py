"""`encdl inspect`: what containers say about themselves; unverified, unless a key or public key is given."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdl.commands.common import add_key, file_name, file_or_address, open_key
from encdl.commands.many_files import Failures, counted, exit_code, is_batch, tell_of
from encdl.files import container
from encdl.files.container import VERSION, Header, Metadata, aes_wrap
from encdl.files.container.header import SALVAGE
from encdl.files.container.sections import MAX_SECTION_BYTES, PIXELS, SERIES, Section
from encdl.files.folders import Left, gather
from encdl.keys.key import NO_KEY, AnyOpener
from encdl.keys.planes import key_bits, weakness
from encdl.keys.signing import PublicKey
from encdl.utils.errors import ContainerError, EncdlError, WrongKeyError
from encdl.utils.messages import say

if TYPE_CHECKING:
    from encdl.files.series_tags import SeriesTag


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "paths", type=file_or_address, nargs="+", metavar="PATH", help=".encdl files; of folders a summary"
    )
    parser.add_argument(
        "--verify-key",
        type=file_name,
        metavar="P",
        help="fail unless the owner of this public key (`encdl keygen --signing`) signed each file as it is",
    )
    add_key(
        parser,
        "key or grant: verify every byte of each file, and tell what is sealed: format, identity, of DICOM files and "
        "volumes size and spacing, and defects of series",
        required=False,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a file, each on one line")


@dataclass(frozen=True)
class Checks:
    """What files are held against.

    Attributes:
        public: the owner's public key, which has to fit their signatures.
        opener: what opens them, and tells whether their tags are right.
    """

    public: PublicKey | None
    opener: AnyOpener | None

    @property
    def given(self) -> bool:
        """Whether there are any."""
        return self != Checks(None, None)

    @property
    def note(self) -> str:
        """What is said of a file that passed."""
        told = [] if self.public is None else [f"as the owner of key {self.public.id} signed it"]
        if self.opener is not None:
            told.append("verified with the key: all tags of header, metadata, pixels and sections fit; not decrypted")
        return "; ".join(told) or "read without a key: not verified"

    def run(self, path: Path) -> Metadata | None:
        """Read a whole file, a chunk at a time; what is sealed in it, if a key is given.

        Raises:
            ContainerError: it was changed, or is not signed.
            WrongKeyError: made with another key, or the grant is for something else.
        """
        if self.opener is None:
            with container.opened_without_key(path) as shown:
                if self.public is not None:
                    shown.check_signature(self.public)
                if shown.is_hit():
                    raise ContainerError(f"{path}: its beginning was hit: {SALVAGE}")
                return None
        with container.opened(path, self.opener) as reader:
            if self.public is not None:
                reader.check_signature(self.public)
            reader.verify()
            for section in reader.sections:
                if section.length > MAX_SECTION_BYTES and section.name != PIXELS:
                    raise ContainerError(f"{path}: section {section.name!r} is too long to verify: update EncDL")
            return reader.metadata


def run(args: argparse.Namespace) -> int:
    """Print each header, and of several files how many are alike; tell of files that are cut."""
    public = None if args.verify_key is None else PublicKey.load(args.verify_key)
    checks = Checks(public, None if args.key is None else open_key(args.key))
    if is_batch(args.paths):
        return _many(args, checks)
    _, problem = _show(args.paths[0], args.json, checks)
    if problem is not None:
        raise problem
    failures = Failures()
    _tell_scans(args, args.paths, checks, failures)
    return exit_code(failures.count, 1)


def _many(args: argparse.Namespace, checks: Checks) -> int:
    from encdl.files import file_names  # noqa: PLC0415

    left: list[Left] = []
    sources = gather(args.paths, file_names.is_encrypted, "encrypted file", left)
    undone = tell_of(left, "NOT inspected")
    failures, kinds, whole = Failures(), Counter[str](), list[Path]()
    for source in sources:
        # Files that are named are described, those of folders counted: a series has hundreds.
        shown = source.path in args.paths
        try:
            kind, problem = _show(source.path, args.json, checks, shown)
            kinds[kind] += 1
        except EncdlError as error:
            problem = error
        if problem is not None:
            failures.tell(source.path, problem)
        else:
            whole.append(source.path)
        if shown and not args.json:
            say()
    if not args.json:
        for kind, count in kinds.items():
            say(f"{counted(count)}: {kind}")
        if whole and checks.given:
            say(f"{counted(len(whole))}: {checks.note}")
        _tell_scans(args, whole, checks, failures)
    failures.tell_rest()
    return exit_code(failures.count, len(sources), undone)


def _tell_scans(args: argparse.Namespace, paths: Sequence[Path], checks: Checks, failures: Failures) -> None:
    """Tell of series and volumes, without a key those of several files alone."""
    from encdl.commands import scan_listing  # noqa: PLC0415

    if args.json or (checks.opener is None and not is_batch(args.paths)):
        return
    for told in (
        scan_listing.without_key(paths)
        if checks.opener is None
        else scan_listing.with_key(paths, checks.opener, failures)
    ):
        say(told)


def _show(path: Path, as_json: bool, checks: Checks, described: bool = True) -> tuple[str, EncdlError | None]:
    """Print what the header says; what files of its kind share, and what is wrong with the file."""
    wrapping = container.read_wrapping(path)
    if wrapping is not None:
        if checks.public is not None and checks.opener is None:
            raise ContainerError(f"{path}: is wrapped in AES-256-GCM: without its key there is nothing to verify")
        found = _found(path, checks) if checks.opener is not None else _Found(checks)
        if as_json or described:
            _show_wrapping(path, wrapping, as_json, found)
        return f"wrapped in AES-256-GCM, key {wrapping.key_id}, {_study(wrapping.study)}", found.problem
    header, found = container.read_header(path), _found(path, checks)
    if as_json or described:
        _show_header(path, header, as_json, found)
    image = "no image, sealed as it is" if found.carried else _image(header)
    return f"{image}, key {header.key_id}, {_study(header.study)}", found.problem


@dataclass(frozen=True)
class _Found:
    """How the checks of a file ended: what is sealed in it, if a key is given, and what is wrong with it."""

    checks: Checks
    sealed: Metadata | None = None
    problem: EncdlError | None = None

    @property
    def carried(self) -> bool:
        """Whether the file is known to hold no image."""
        from encdl.files.formats.verbatim import CARRIED  # noqa: PLC0415 - without a key nothing is told of formats

        return self.sealed is not None and self.sealed.format == CARRIED

    def fields(self) -> dict[str, Any]:
        """It, for programs."""
        public, opener = self.checks.public, self.checks.opener
        by = [name for name, one in (("signature", public), ("key", opener)) if one is not None and not self.problem]
        sealed = self.sealed and {"format": self.sealed.format, "identity": self.sealed.identity}
        return {"verified": bool(by), "verified_by": by, "sealed": sealed}

    def rows(self) -> list[tuple[str, str]]:
        """It, for people."""
        rows = []
        if self.sealed is not None:
            called = f", called {self.sealed.identity!r} by its owner" if self.sealed.identity else ""
            rows.append(("sealed", f"{'no image' if self.carried else self.sealed.format}{called}"))
        failed = self.problem is not None and self.checks.given
        return [*rows, ("note", "NOT verified" if failed else self.checks.note)]


def _found(path: Path, checks: Checks) -> _Found:
    try:
        return _Found(checks, checks.run(path))
    except (ContainerError, WrongKeyError) as error:
        return _Found(checks, problem=error)


def _show_header(path: Path, header: Header, as_json: bool, found: _Found) -> None:
    sections: tuple[Section, ...] = ()
    series: SeriesTag | None = None
    with contextlib.suppress(ContainerError), container.opened_without_key(path) as reader:
        sections, shown = reader.sections, reader.section(SERIES)
        if shown is not None:
            from encdl.files.series_tags import SeriesTag  # noqa: PLC0415

            series = SeriesTag.from_bytes(shown)
    size, ids = container.file_bytes(path), container.recipients_of(path)
    if as_json:
        extra = {
            "file": str(path),
            "recipients": ids,
            "version": VERSION,
            "file_bytes": size,
            "chunks": header.grid.count,
            "complete": bool(sections),
            "sections": [vars(section) for section in sections],
            "series": series and vars(series),
            "key_bits": key_bits(header.planes, header.grid.planes, *header.grid.tile),
        }
        say(json.dumps({**header.fields(), **extra, **found.fields()}, sort_keys=True))
        return
    rows = _describe(path, header, size, sections)
    if not sections:
        rows.insert(2, ("left", _left(path)))
    if series is not None:
        rows.append(("series", f"tag {series.tag}, number {series.number}"))
    _print([*rows, ("recipients", ", ".join(ids) or "none"), *found.rows()])


def _print(rows: Sequence[tuple[str, str]]) -> None:
    say("\n".join(f"{name:<14}{value}" for name, value in rows))


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
    bits = key_bits(header.planes, header.grid.planes, *header.grid.tile)
    return "; ".join([f"{bits} in the planes of a chunk", *weakness(header.planes).values()])


def _image(header: Header) -> str:
    return f"{'x'.join(str(length) for length in header.shape)} {header.dtype} ({header.layout})"


def _key(key_id: str) -> str:
    return "none: it was made for its recipients alone" if key_id == NO_KEY else key_id


def _study(name: str) -> str:
    return f"study {name!r}" if name else "no study"


def _show_wrapping(path: Path, wrapping: aes_wrap.Header, as_json: bool, found: _Found) -> None:
    size, ids = container.file_bytes(path), container.recipients_of(path)
    if as_json:
        public = {"key_id": wrapping.key_id, "nonce": wrapping.nonce.hex(), "study": wrapping.study}
        extra = {"file": str(path), "file_bytes": size, "wrap": "aes", "recipients": ids}
        say(json.dumps(public | extra | found.fields(), sort_keys=True))
        return
    rows = [
        ("file", str(path)),
        ("container", f"wrapped in AES-256-GCM, {size:,} bytes: all else is secret"),
        ("key", _key(wrapping.key_id)),
        ("study", repr(wrapping.study) if wrapping.study else "none"),
        ("nonce", wrapping.nonce.hex()),
        ("recipients", ", ".join(ids) or "none"),
    ]
    _print([*rows, *found.rows()])


def _describe(path: Path, header: Header, size: int, sections: tuple[Section, ...]) -> list[tuple[str, str]]:
    planes = ", ".join(f"{name} {value}" for name, value in sorted(header.planes.to_dict().items()))
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
