"""`encdl keygen` and `encdl grant`."""

from __future__ import annotations

import argparse
from pathlib import Path

from encdl import atomic, container
from encdl.commands.common import add_key, add_output, different_files, open_key
from encdl.errors import WrongKeyError
from encdl.keys.key import Grant, Key


class KeyGen:
    """`encdl keygen`: a new random key in a file that only its owner can read."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments."""
        parser.add_argument("path", type=Path, metavar="FILE", help="key file to write")
        parser.add_argument("--force", action="store_true", help="replace the file: its old key is lost")

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Make the key."""
        atomic.check_output(args.path, args.force)
        key = Key.generate()
        key.save(args.path, force=args.force)
        print(f"{args.path}: new key {key.id}. Keep it secret, and keep a copy: without it no file opens.")
        return 0


class MakeGrant:
    """`encdl grant`: a derived key that opens one study or one file, and nothing else."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments."""
        add_key(parser, "your key; for one file, a grant for its study serves too")
        scope = parser.add_mutually_exclusive_group(required=True)
        scope.add_argument("--study", metavar="S", help="open every file of this study, also future ones")
        scope.add_argument("--file", type=Path, metavar="F", help="open this .encdl file only")
        add_output(parser, "")

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Derive the grant and save it."""
        opener = open_key(args.key)
        atomic.check_output(args.output, args.force)
        different_files(args.output, args.key, *([args.file] if args.file else []))
        if args.study is not None:
            grant = _for_study(opener, args.study)
            what = f"study {args.study!r}"
        else:
            # Verified first: a changed header would make a grant that opens nothing.
            header = container.verify(args.file, opener)
            grant = opener.grant_file(header.nonce_bytes, header.study)
            what = f"{args.file}"
        grant.save(args.output, force=args.force)
        print(f"{args.output}: grant for {what} under key {grant.key_id}. Whoever holds it can open that.")
        return 0


def _for_study(opener: Key | Grant, study: str) -> Grant:
    if isinstance(opener, Grant):
        raise WrongKeyError("--key is a grant: only the key itself can grant a study: ask its owner")
    return opener.grant_study(study)
