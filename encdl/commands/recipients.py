"""`encdl recipients`: who opens files with a key of their own, beside or without the owner's."""

from __future__ import annotations

import argparse
import json
import re

from encdl.commands.common import JOBS, PATHS, RECIPIENTS, add_key, file_name, file_or_address, open_key
from encdl.commands.many_files import Batch, exit_code, find, is_batch, line
from encdl.files import container, file_names
from encdl.files.folders import Done, Left, Progress, Source
from encdl.files.readdressing import Readdressing
from encdl.keys.recipients import RecipientPublicKey
from encdl.utils import atomic
from encdl.utils.errors import EncdlError, UsageError
from encdl.utils.messages import complain, say, warn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the three verbs' arguments."""
    verbs = parser.add_subparsers(dest="change", metavar="add|remove|list", required=True)
    add = verbs.add_parser("add", help="let more recipients open files")
    remove = verbs.add_parser(
        "remove",
        help="take recipients off files",
        description="Take recipients off files. This revokes nothing that they opened or copied before: to shut "
        "somebody out of what comes, `encdl rekey` every copy.",
    )
    for one in (add, remove):
        files = f"{PATHS['help']}; each is replaced in one step"
        one.add_argument("paths", **PATHS | {"type": file_name, "help": files})
        one.add_argument("--jobs", **JOBS)
        add_key(one, "key, grant or recipient's key that opens the files")
        one.add_argument(
            "--recipient",
            **RECIPIENTS,
            required=one is add,
            help="public key file (`encdl keygen --recipient`) of a recipient (several times for several)",
        )
    remove.add_argument(
        "--id", dest="ids", type=_an_id, action="append", default=[], help="of a recipient whose public key is lost"
    )
    show = verbs.add_parser("list", help="show whom files are sealed to; without a key, so a claim")
    show.add_argument("paths", type=file_or_address, nargs="+", metavar="PATH", help=".encdl files, or folders of them")
    show.add_argument("--json", action="store_true", help="print one JSON object a file, each on one line")


def run(args: argparse.Namespace) -> int:
    """Change or show the recipients of every file."""
    left: list[Left] = []
    sources = find(args.paths, file_names.is_encrypted, f"{container.SUFFIX} file", left)
    if args.change == "list":
        return _list(sources, args.json)
    publics = [RecipientPublicKey.load(path) for path in args.recipients]
    removed = [*args.ids, *(public.id for public in publics)] if args.change == "remove" else []
    if args.change == "remove" and not removed:
        raise UsageError("nobody to take off: give --recipient or --id")
    change = Readdressing(open_key(args.key), [] if removed else publics, removed)

    def work(source: Source, progress: Progress) -> Done:
        atomic.different_files(source.path, *args.key.files)
        return change.write(source.path)

    if not is_batch(args.paths):
        done = work(sources[0], int)
        if removed and done.there:
            raise UsageError(f"{args.paths[0]}: is not sealed to {', '.join(removed)}: it has {done.told}")
        say(f"{args.paths[0]}: {done.told}")
        code = 0
    else:
        there = "without them already" if removed else "finished before"
        code = Batch(sources, args.jobs, f"given {'fewer' if removed else 'more'} recipients", left, there).run(work)
    if change.unknown:
        told = ", ".join(sorted(change.unknown))
        warn(f"no file that opened was sealed to {told}: check the id, unless an earlier run was cut off")
    if set(removed) - change.unknown:
        warn("who is taken off keeps what was opened or copied before: to shut them out, rekey every copy")
    return code


def _list(sources: list[Source], as_json: bool) -> int:
    failed = 0
    for source in sources:
        try:
            ids = container.recipients_of(source.path)
        except EncdlError as error:
            failed += 1
            complain(line(source.path, error))
            continue
        if as_json:
            say(json.dumps({"file": str(source.path), "recipients": ids}))
        else:
            say(f"{source.path}: {', '.join(ids) or 'none'}")
    return exit_code(failed, len(sources))


def _an_id(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{16}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no id of 16 hexadecimal digits")
    return text
