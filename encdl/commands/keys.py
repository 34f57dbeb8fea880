"""`encdl keygen`, `passwd`, `keyinfo` and `grant`."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

from encdl.commands import functional_keys
from encdl.commands.common import (
    FORCE,
    OUTPUT,
    Part,
    add_key,
    add_key_file,
    add_passphrase,
    file_name,
    file_or_address,
    open_key,
)
from encdl.files import container
from encdl.keys import grant as grants
from encdl.keys.key import AnyOpener, Grant, Key, RecipientKey
from encdl.keys.key_pairs import PUBLIC_SUFFIX
from encdl.keys.key_source import KeySource, PassphraseSource
from encdl.keys.passphrases import Passphrase
from encdl.keys.recipients import RecipientPublicKey
from encdl.keys.signing import SigningKey
from encdl.utils import atomic
from encdl.utils.errors import UsageError, WrongKeyError
from encdl.utils.messages import say

MAX_DAYS = 36_525
"""A hundred years."""


class KeyGen:
    """`encdl keygen`: a new random key in a file that only its owner can read, or a pair of keys to sign and verify."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments."""
        add_key_file(parser, "key file to write", "?")
        parser.add_argument(
            "-o", "--output", dest="key", action=Part, part="path", type=file_name, metavar="OUT", help="the same"
        )
        parser.add_argument("--force", action="store_true", help="replace the file: its old key is lost")
        pair = parser.add_mutually_exclusive_group()
        pair.add_argument(
            "--signing",
            action="store_true",
            help="make a key that signs (`encdl encrypt --sign`), and beside it, with the ending "
            f"{PUBLIC_SUFFIX}, the public key that verifies, for everyone",
        )
        pair.add_argument(
            "--recipient",
            action="store_true",
            help="make a key that opens what is sealed to it, and beside it, with the ending "
            f"{PUBLIC_SUFFIX}, the public key to seal with (`encdl encrypt --recipient`), for everyone",
        )
        group = add_passphrase(parser, "a passphrase to lock the file with")
        group.add_argument(
            "--passphrase",
            dest="key",
            action=Part,
            part="passphrase",
            nargs=0,
            const=PassphraseSource(),
            help="lock the file with a passphrase, asked for twice",
        )

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Make the key."""
        source: KeySource | None = args.key
        if source is None or source.path is None:
            raise UsageError("give the name of the key file to write")
        [path] = source.files
        atomic.check_output(path, args.force)
        passphrase = None if source.passphrase is None else source.passphrase.get_new(str(path))
        if args.signing or args.recipient:
            return _new_pair(SigningKey if args.signing else RecipientKey, path, passphrase, args.force)
        key = Key.generate()
        key.save(path, force=args.force, passphrase=passphrase)
        without = "without it" if passphrase is None else "without it and its passphrase"
        say(f"{path}: new key {key.id}. Keep it secret, and keep a copy: {without} no file opens.")
        return 0


def _new_pair(
    kind: type[SigningKey] | type[RecipientKey], path: Path, passphrase: Passphrase | None, force: bool
) -> int:
    public = path.with_suffix(PUBLIC_SUFFIX)
    if public == path:
        raise UsageError(f"{path}: is the public key's name: give the secret key another ending")
    atomic.check_output(public, force)
    pair = kind.generate()
    pair.save(path, force=force, passphrase=passphrase)
    pair.public.save(public, force=force)
    does, others = (
        ("signs in your name", "verify") if kind is SigningKey else ("opens what is sealed to you", "encrypt for you")
    )
    say(
        f"{path}: new {pair.kind} key {pair.public.id}. Keep it secret: whoever has it {does}.\n"
        f"{public}: its public key. Give it to all who shall {others}, on a way on which nobody can exchange it."
    )
    return 0


class ChangePassphrase:
    """`encdl passwd`: lock a key or grant file with a passphrase, change it, or take it off."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments."""
        add_key_file(parser, "key or grant file; replaced in one step")
        add_passphrase(parser, "the passphrase that it has now, if any (default: ask)")
        group = add_passphrase(parser, "the new passphrase (default: ask twice)", "new-")
        group.add_argument("--remove", action="store_true", help="store it without a passphrase from now on")

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Write the file anew; the key in it stays as it is, and so does all that it opens."""
        source: KeySource = args.key
        opener = source.open(source.ask, expired=True)
        new: PassphraseSource = (args.new_key and args.new_key.passphrase) or PassphraseSource()
        passphrase = None if args.remove else new.get_new(str(source))
        # Of a link, what it points to is replaced.
        opener.save(os.path.realpath(str(source)), force=True, passphrase=passphrase)
        state = "without a passphrase now" if args.remove else "under the new passphrase"
        say(f"{source}: {_kind(opener)} {opener.key_id}, {state}. Other copies of it are as they were.")
        return 0


class KeyInfo:
    """`encdl keyinfo`: what a key or grant is and opens, without its secret."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments."""
        add_key_file(parser, "key, grant or functional key file")
        add_passphrase(parser, "the passphrase, if it is locked with one (default: ask)", recipient=True)
        parser.add_argument(
            "--issuer",
            type=file_name,
            metavar="K",
            help="your key, or your grant for the study: fail unless it made this grant, with this scope and end",
        )
        parser.add_argument(
            "--reader",
            type=file_name,
            metavar="CKPT",
            help="of a functional key: also quote its reader's checkpoint on attacks on such numbers",
        )

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Print it; fail afterwards if it is not the issuer's."""
        if functional_keys.is_one(args.key.files[0]):
            _print_lines(functional_keys.describe(args.key, args.issuer, args.reader))
            return 0
        if args.reader is not None:
            raise UsageError(f"--reader is for functional keys, and {args.key} is none: leave it out")
        opener = args.key.open(args.key.ask, expired=True)
        issuer = None if args.issuer is None else open_key(KeySource(path=args.issuer))
        _print_lines(_describe(opener))
        if issuer is None:
            return 0
        if not isinstance(opener, Grant) or isinstance(issuer, RecipientKey) or not issuer.has_issued(opener):
            raise WrongKeyError(
                f"{args.key}: {args.issuer} did not make this {_kind(opener)}, or it was changed since, or it is of "
                "an older version, which bears no mark"
            )
        say(f"{'issuer':<9}{args.issuer} made it, as it stands here")
        return 0


class MakeGrant:
    """`encdl grant`: a derived key that opens one study or one file, or a functional key for one reader."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments."""
        add_key(parser, "your key; for one file, a grant for its study serves too")
        scope = parser.add_mutually_exclusive_group(required=True)
        scope.add_argument("--study", metavar="S", help="open every file of this study, also future ones")
        scope.add_argument("--file", type=file_or_address, metavar="F", help="open this .encdl file only")
        functional_keys.add_arguments(parser, scope)
        end = parser.add_mutually_exclusive_group()
        end.add_argument(
            "--expires",
            metavar="DATE",
            help="last day (UTC) on which EncDL takes the grant, for example 2027-01-31. This is advisory: the "
            "holder can change the file or the clock. To take a grant back for good, rekey the files",
        )
        end.add_argument("--days", metavar="N", help="the same, as so many days from now")
        parser.add_argument(
            "--recipient",
            "--to",
            dest="to",
            type=file_name,
            metavar="P",
            help="seal the grant or functional key to this recipient's public key; nobody else can use it",
        )
        parser.add_argument("-o", "--output", **OUTPUT, required=True, help="file to write")
        parser.add_argument("--force", **FORCE)

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Derive the grant and save it."""
        end = _end(args.expires, args.days)
        functional_keys.check_arguments(args)
        to = None if args.to is None else RecipientPublicKey.load(args.to)
        opener = open_key(args.key)
        if isinstance(opener, RecipientKey):
            raise UsageError(f"{args.key}: a recipient's key grants nothing: `encdl recipients add` lets others in")
        atomic.check_output(args.output, args.force)
        atomic.different_files(
            args.output, *args.key.files, *filter(None, (args.file, args.scan, args.reader, args.sign, args.to))
        )
        if args.reader is not None:
            return functional_keys.make(args, opener, end, to)
        if args.study is not None:
            grant = _for_study(opener, args.study, end)
            what = f"study {args.study!r}"
        else:
            # Verified first: a changed header would make a grant that opens nothing.
            header = container.verify(args.file, opener)
            grant = opener.grant_file(header.nonce_bytes, header.study, end)
            what = f"{args.file}"
        grant.save(args.output, force=args.force, to=to)
        until = "" if grant.expires is None else f", until {_told(grant.expires)} (advisory)"
        holder = "Whoever holds it" if to is None else f"Recipient {to.id} alone"
        say(f"{args.output}: grant for {what} under key {grant.key_id}{until}. {holder} can open that.")
        return 0


def _print_lines(lines: list[tuple[str, str]]) -> None:
    say("\n".join(f"{name:<9}{value}" for name, value in lines))


def _for_study(opener: Key | Grant, study: str, end: datetime | None) -> Grant:
    if isinstance(opener, Grant):
        raise WrongKeyError("--key is a grant: only the key itself can grant a study: ask its owner")
    return opener.grant_study(study, end)


def _end(date: str | None, days: str | None) -> datetime | None:
    """The grant's end in UTC, of whichever option was given."""
    now = grants.utc_now()
    if days is not None:
        if not days.isascii() or not days.isdigit() or not 1 <= int(days[:9]) <= MAX_DAYS:
            raise UsageError(f"--days {days}: give a whole number from 1 to {MAX_DAYS}")
        return now + timedelta(days=int(days))
    if date is None:
        return None
    try:
        day = datetime.strptime(date, "%Y-%m-%d").date()
    except ValueError:
        raise UsageError(f"--expires {date}: give a date as YYYY-MM-DD, for example 2027-01-31") from None
    end = datetime.combine(day, time(23, 59, 59), UTC)
    if end <= now:
        raise UsageError(f"--expires {date}: that day is over: give a later one")
    return end


def _kind(opener: AnyOpener) -> str:
    kinds = {Key: "key", RecipientKey: "recipient key"}
    return kinds.get(type(opener), "grant from key")


def _told(end: datetime) -> str:
    return f"{end:%Y-%m-%d %H:%M:%S} UTC"


def _describe(opener: AnyOpener) -> list[tuple[str, str]]:
    if isinstance(opener, Key):
        return [("kind", "master key: opens every file of its owner"), ("key", opener.id)]
    if isinstance(opener, RecipientKey):
        return [("kind", "recipient's key: opens what was sealed to it"), ("id", opener.key_id)]
    study = repr(opener.study) if opener.study else "none"
    scope = "one file" if opener.nonce else "every file of its study"
    nonce = [("nonce", opener.nonce.hex())] if opener.nonce else []
    end = "never" if opener.expires is None else f"{_told(opener.expires)} (advisory)"
    if opener.expires is not None and opener.expires <= grants.utc_now():
        end += ", is over"
    return [("kind", f"grant: opens {scope}"), ("key", opener.key_id), ("study", study), *nonce, ("ends", end)]
