"""`encdl encrypt`, `decrypt`, `rekey` and `inspect`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from encdl import atomic, container, images
from encdl.commands.common import (
    add_cipher,
    add_key,
    add_output,
    different_files,
    load_cipher,
    one_line_warnings,
    open_key,
    warn,
)
from encdl.container import Header
from encdl.errors import ContainerError, EncdlError, UsageError, WeightsError
from encdl.keys.key import Grant, Opener
from encdl.keys.maps import MAPS
from encdl.keys.planes import EXPANSIONS, LeakyExpansionWarning, PlaneSpec

if TYPE_CHECKING:
    from encdl.codec import Codec
    from encdl.weights import LoadedCipher

# Kept here too, so that help needs no torch; a test compares them with `encdl.postprocess.NAMES`.
POSTPROCESS = ("none", "confusion", "diffusion", "both")
NONCES = ("random", "synthetic")


class Encrypt:
    """`encdl encrypt`: an image file into a container."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments."""
        parser.add_argument("path", type=Path, metavar="PATH", help="image: PNG, TIFF, NPY, JPEG or BMP")
        add_key(parser)
        add_output(parser, "file to write (default: PATH with the ending .encdl)")
        add_cipher(parser, "default: the trained cipher that comes with EncDL")
        parser.add_argument(
            "--nonce",
            choices=NONCES,
            default="random",
            help="random (default), or synthetic: from a keyed hash of the image, so that one changed pixel "
            "changes the whole ciphertext; equal images then give equal files",
        )
        parser.add_argument("--map", choices=tuple(MAPS), help="chaotic map (default: logistic)")
        parser.add_argument(
            "--expansion", choices=tuple(EXPANSIONS), help="of the key planes (default: full)"
        )
        parser.add_argument("--period", type=int, metavar="N", help="of the expansions that repeat")
        parser.add_argument(
            "--postprocess", choices=POSTPROCESS, default="none", help="after the network (default: none)"
        )
        parser.add_argument(
            "--study", metavar="S", help="study that the file belongs to; anyone can read its name"
        )

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Encrypt one image."""
        with one_line_warnings():
            array, file_format = images.read_with_format(args.path)
        output = _container_name(args.output or args.path.with_suffix(container.SUFFIX))
        opener = open_key(args.key)
        different_files(output, args.path, args.key)
        atomic.check_output(output, args.force)
        study = _study(args.study, opener)
        _plane_spec(args, planes=PlaneSpec().planes)  # a wrong setting shows before the network is loaded
        loaded = load_cipher(args.weights or "default", args.device)
        codec = _codec(loaded)
        if not loaded.cipher.exact:
            warn(f"cipher {loaded.cipher.name} is a baseline: it does not decrypt exactly and shows outlines")
        with one_line_warnings():
            header, body = codec.encrypt_array(
                array,
                opener,
                planes=_plane_spec(args, planes=loaded.cipher.planes),
                postprocess=args.postprocess,
                nonce=args.nonce,
                study=study,
                file_format=file_format,
            )
        keys = opener.image_keys(header.nonce_bytes, study)
        container.write(output, header, body, keys, force=args.force)
        print(f"{output}: {_picture(header)}, cipher {header.cipher}, key {header.key_id}")
        return 0


class Decrypt:
    """`encdl decrypt`: a container back into an image file."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments."""
        parser.add_argument("path", type=Path, metavar="FILE", help=".encdl file")
        add_key(parser)
        add_output(
            parser, "image to write, .png, .tiff or .npy (default: FILE with the original kind's ending)"
        )
        add_cipher(parser, "default: those that the file names, if they come with EncDL")
        parser.add_argument(
            "--salvage",
            action="store_true",
            help="open a damaged or cut file as well as possible: UNVERIFIED and not exact",
        )

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Decrypt one file."""
        opener = open_key(args.key)
        header, body, lost = _read(args.path, opener, args.salvage)
        output = images.check_suffix(args.output or _image_name(args.path, header))
        different_files(output, args.path, args.key)
        atomic.check_output(output, args.force)
        loaded = _cipher_of(args, header)
        codec = _codec(loaded)
        with one_line_warnings(ignore=LeakyExpansionWarning):  # too late to tell: the file is what it is
            if lost is None:
                array = codec.decrypt_array(header, body, opener)
            else:
                array = codec.salvage_array(header, body, lost, opener)
        images.write(output, array, force=args.force)
        exact = "" if loaded.cipher.exact else ", approximate as this cipher is"
        print(f"{output}: {_picture(header)}{', salvaged' if lost is not None else exact}")
        return 0


class Rekey:
    """`encdl rekey`: the same image under another key."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments."""
        parser.add_argument("path", type=Path, metavar="FILE", help=".encdl file")
        add_key(parser, "key or grant that opens the file now")
        add_key(parser, "key or study grant that shall open it", prefix="new-")
        add_output(
            parser, "file to write (default: replace FILE, in one step, after the new one is verified)"
        )
        add_cipher(parser, "default: those that the file names, if they come with EncDL")

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Encrypt the image of one file anew."""
        old, new = open_key(args.key), open_key(args.new_key)
        output = _container_name(args.output or args.path)
        in_place = args.output is None or (
            output.exists() and args.path.exists() and output.samefile(args.path)
        )
        different_files(output, args.key, args.new_key)
        if not in_place:
            atomic.check_output(output, args.force)
        header, body = container.read(args.path, old)
        if isinstance(new, Grant):
            _study(header.study, new)
        loaded = _cipher_of(args, header)
        if not loaded.cipher.exact:
            raise UsageError(
                f"{args.path}: cipher {header.cipher!r} does not decrypt exactly, so rekeying would "
                "lose quality: encrypt the original again"
            )
        codec = _codec(loaded)
        with one_line_warnings():
            array = codec.decrypt_array(header, body, old)
            fresh, sealed = codec.encrypt_array(
                array,
                new,
                planes=header.plane_spec(),
                postprocess=header.postprocess,
                study=header.study,
                file_format=header.format,
            )
            again = codec.decrypt_array(fresh, sealed, new)
        if not np.array_equal(again, array):
            raise ContainerError(
                f"{args.path}: the new file would not decrypt to the same image: left as it was"
            )
        keys = new.image_keys(fresh.nonce_bytes, fresh.study)
        container.write(output, fresh, sealed, keys, force=in_place or args.force)
        print(f"{output}: from key {header.key_id} to key {fresh.key_id}")
        return 0


class Inspect:
    """`encdl inspect`: the header, without a key and therefore unverified."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments."""
        parser.add_argument("path", type=Path, metavar="FILE", help=".encdl file")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Print the header; fail afterwards if the file is cut."""
        header = container.read_header(args.path)
        problem: EncdlError | None = None
        try:
            container.check_size(args.path)
        except ContainerError as error:
            problem = error
        size = args.path.stat().st_size
        if args.json:
            extra = {"version": container.VERSION, "file_bytes": size, "complete": problem is None}
            print(json.dumps({**asdict(header), **extra}, sort_keys=True))
        else:
            print("\n".join(f"{name:<14}{value}" for name, value in _describe(header, size, problem is None)))
        if problem is not None:
            raise problem
        return 0


def _read(path: Path, opener: Opener, salvage: bool) -> tuple[Header, bytes, npt.NDArray[np.bool_] | None]:
    """Read a verified file; or with `salvage` what is left of it, and the known losses as the last item."""
    try:
        return (*container.read(path, opener), None)
    except ContainerError:
        if not salvage:
            raise
    header, body, lost = container.read_damaged(path, opener)
    missing = (
        f"{100 * lost.mean():.1f} % of it is missing" if lost.any() else "where it was changed is unknown"
    )
    warn(f"{path}: failed verification, {missing}: the result is a best guess, not for diagnosis")
    return header, body, lost


def _study(study: str | None, opener: Opener) -> str:
    """The study to encrypt for: a study grant serves its own study alone."""
    if not isinstance(opener, Grant):
        return study or ""
    if opener.scope != "study":
        raise UsageError("a grant for one file cannot encrypt: use the key, or a grant for a study")
    if study is not None and study != opener.study:
        raise UsageError(
            f"the grant is for study {opener.study!r}, not {study!r}: use the key, or that study"
        )
    return opener.study


def _plane_spec(args: argparse.Namespace, planes: int) -> PlaneSpec:
    given = {"map": args.map, "expansion": args.expansion, "period": args.period}
    return PlaneSpec(planes=planes, **{name: value for name, value in given.items() if value is not None})


def _cipher_of(args: argparse.Namespace, header: Header) -> LoadedCipher:
    """The cipher that a file asks for, if it comes with EncDL; the codec compares the weights' id later."""
    from encdl.weights import SHIPPED  # noqa: PLC0415

    if args.weights is None and header.cipher not in SHIPPED:
        raise WeightsError(
            f"{args.path}: was made by cipher {header.cipher!r} with weights {header.weights}, which do not come "
            "with this EncDL: give them with --weights"
        )
    return load_cipher(args.weights or header.cipher, args.device)


def _codec(loaded: LoadedCipher) -> Codec:
    from encdl.codec import Codec  # noqa: PLC0415

    return Codec(loaded.cipher, loaded.id, device=next(loaded.cipher.parameters()).device)


def _container_name(path: Path) -> Path:
    if path.suffix.lower() in images.READABLE_SUFFIXES:
        raise UsageError(
            f"{path}: an encrypted file is no {path.suffix} image: give a name that ends with {container.SUFFIX}"
        )
    return path


def _image_name(path: Path, header: Header) -> Path:
    ending = f".{header.format}"
    return path.with_suffix(ending) if path.suffix == container.SUFFIX else path.with_name(path.name + ending)


def _picture(header: Header) -> str:
    return f"{'x'.join(str(size) for size in header.shape)} {header.dtype}"


def _describe(header: Header, size: int, complete: bool) -> list[tuple[str, str]]:
    planes = ", ".join(f"{name} {value}" for name, value in sorted(header.planes.items()))
    return [
        (
            "container",
            f"version {container.VERSION}, {size:,} bytes, {'complete' if complete else 'NOT COMPLETE'}",
        ),
        ("image", f"{_picture(header)} ({header.layout}), from {header.format}"),
        ("cipher", f"{header.cipher}, weights {header.weights}"),
        ("key", header.key_id),
        ("study", repr(header.study) if header.study else "none"),
        ("nonce", header.nonce),
        ("key planes", planes),
        ("postprocess", header.postprocess),
        ("note", "read without a key: not verified"),
    ]
