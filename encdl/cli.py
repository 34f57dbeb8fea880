"""The one command `encdl`. A verb's code is imported only when the verb is used, so that help is instant."""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from encdl import __version__
from encdl.utils import recipes
from encdl.utils.errors import EncdlError, explain, without_secrets
from encdl.utils.messages import complain, plain
from encdl.utils.processes import Terminated, forbid_core_dumps, terminable, wait_briefly

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Verb:
    """A verb: one line of help, and where its code is.

    Attributes:
        help: the line that `encdl --help` shows.
        target: "module:" or "module:name" of something with `add_arguments(parser)` and `run(args) -> int`, for
            `pkgutil.resolve_name`; with `whole`, of a function that takes the verb and everything after it.
        whole: whether the target reads the command line itself.
        secret: whether it opens keys and calls nothing that has to look into its memory, as GPUs of a training do.
    """

    help: str
    target: str
    whole: bool = False
    secret: bool = False


VERBS = {
    "keygen": Verb("make a new secret key", "encdl.commands.keys:KeyGen", secret=True),
    "passwd": Verb(
        "set, change or remove the passphrase of a key file", "encdl.commands.keys:ChangePassphrase", secret=True
    ),
    "keyinfo": Verb(
        "show what a key or grant file is and opens, without its secret", "encdl.commands.keys:KeyInfo", secret=True
    ),
    "grant": Verb("derive a key for one study or one file only", "encdl.commands.keys:MakeGrant", secret=True),
    "samples": Verb(
        "write a few MRI slices as PNG to try things out on, half of them with a SYNTHETIC lesion",
        "encdl.commands.samples:",
    ),
    "encrypt": Verb("encrypt images, or folders of them, into .encdl files", "encdl.commands.encrypt:", secret=True),
    "decrypt": Verb("decrypt .encdl files back into what they were made from", "encdl.commands.decrypt:", secret=True),
    "rekey": Verb("encrypt .encdl files anew under another key", "encdl.commands.rekey:", secret=True),
    "recipients": Verb(
        "say who opens .encdl files with a key of their own: add, remove, list",
        "encdl.commands.recipients:",
        secret=True,
    ),
    "inspect": Verb("show what .encdl files say about themselves (no key needed)", "encdl.commands.inspect:"),
    "predict": Verb(
        "read .encdl files with a trained network: classes or masks, without decrypting them",
        "encdl.commands.predict:",
        secret=True,
    ),
    "serve": Verb(
        "answer HTTP requests that carry ciphertext and a grant with what a trained network reads",
        "encdl.commands.serve:",
        secret=True,
    ),
    "keyserver": Verb(
        "give functional keys to hosts over HTTP, by a policy: who, which reader, how much of an image",
        "encdl.commands.keyserver:",
    ),
    "two-party": Verb(
        "make the environment in which a host and a key server read a file together", "encdl.commands.two_party:"
    ),
    "fit": Verb("train: --recipe NAME; --recipe alone lists them", "encdl.training.cli:main", whole=True),
    "validate": Verb("measure a checkpoint on the validation images", "encdl.training.cli:main", whole=True),
    "test": Verb("measure a checkpoint on the test images", "encdl.training.cli:main", whole=True),
    "export": Verb("make a small weights file from a training checkpoint", "encdl.commands.export:"),
    "report": Verb("compare runs on one HTML page: curves, panels, tables", "encdl.commands.report:"),
    "experiment": Verb("run a whole study into one record", "encdl.commands.experiment:"),
    "submit": Verb("hand trainings to a Slurm cluster: one, or a grid of them", "encdl.commands.submit:"),
    "sweep": Verb("train with many settings, here or on a cluster, summed up in one run", "encdl.commands.sweep:"),
    "jobs": Verb("list what was submitted, with its state and its MLflow run", "encdl.commands.jobs:"),
    "audit": Verb("attack a cipher as an attacker would: statistics, attacks, a report", "encdl.commands.audit:"),
    "evaluate": Verb(
        "measure ciphers: repair of damage beside classical repair, exactness, statistics", "encdl.commands.evaluate:"
    ),
    "results": Verb("render README and docs from the records, or --check that they agree", "encdl.commands.results:"),
}


class _Parser(argparse.ArgumentParser):
    """Reports a usage error in one line, like every other error."""

    verb: str | None = None
    """Whose help tells more: the parser of all verbs is the one that finds what a verb left over."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Make `--option A B` to `--option=VALUE` where the option's action says how (`joined`).

        So no file behind an option of several spellings is taken for its value.
        """
        words, found, at = list(sys.argv[1:] if args is None else args), [], 0
        while at < len(words) and words[at] != "--":
            word, at = words[at], at + 1
            join = getattr(self._option_string_actions.get(word), "joined", None)
            value, count = (None, 0) if join is None else join(words[at:])
            found.append(word if value is None else f"{word}={value}")
            at += count
        return super().parse_known_args(found + words[at:], namespace)

    def error(self, message: str) -> NoReturn:
        told = f"{self.prog} {self.verb}" if self.verb else self.prog
        self.exit(EXIT_ERROR, plain(f"encdl: error: {without_secrets(message)} (see `{told} --help`)\n"))


def _parser(verb: str | None) -> argparse.ArgumentParser:
    """Build the parser: every verb with its help line, and the arguments of `verb` alone."""
    parser = _Parser(
        prog="encdl",
        description="Neural ciphers for medical images.",
        epilog="`encdl VERB --help` says more.",
        allow_abbrev=False,
    )
    parser.verb = verb
    parser.add_argument("--version", action="version", version=f"encdl {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    for name, entry in VERBS.items():
        sub = verbs.add_parser(
            name, help=entry.help, description=f"{entry.help[0].upper()}{entry.help[1:]}.", allow_abbrev=False
        )
        if name == verb:
            command = pkgutil.resolve_name(entry.target)
            command.add_arguments(sub)
            sub.set_defaults(run=command.run)
    return parser


def _dispatch(argv: Sequence[str]) -> int:
    verb = argv[0] if argv and argv[0] in VERBS else None
    if verb in recipes.VERBS:
        if recipes.asks_for_listing(verb, argv[1:]):
            print(*recipes.listing(verb), sep="\n")
            return 0
        argv = [verb, *recipes.resolved(verb, argv[1:])]
    if verb is not None and VERBS[verb].secret:
        forbid_core_dumps()
    if verb is not None and VERBS[verb].whole:
        whole = cast(Callable[[list[str]], int | None], pkgutil.resolve_name(VERBS[verb].target))
        return whole(list(argv)) or 0
    args = _parser(verb).parse_args(argv)
    run = cast(Callable[[argparse.Namespace], int], args.run)
    return run(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the words after `encdl`; those of the process by default.

    Returns:
        The exit code: 0, 2 for an error told in one line on stderr, 130 when interrupted, 143 when ended by
        SIGTERM, and so on.
    """
    wait_briefly()
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")  # a file's name may hold bytes that the terminal cannot show
    try:
        os.getcwd()
    except OSError:
        complain("the working directory was removed: go to another one first")
        return EXIT_ERROR
    try:
        with terminable():
            return _dispatch(sys.argv[1:] if argv is None else argv)
    except Terminated as error:
        print(f"encdl: ended by {error.name}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("encdl: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `encdl inspect scan.encdl | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (EncdlError, ModuleNotFoundError, OSError, MemoryError) as error:
        complain(without_secrets(explain(error)))
        return EXIT_ERROR
