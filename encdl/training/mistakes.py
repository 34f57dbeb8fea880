"""Mistakes of users at the start of a training, told in one line."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from encdl.utils import recipes
from encdl.utils.errors import EncdlError, UsageError

RECIPE_PARTS = frozenset({"base", "model", "data", "trainer", "seed_everything"})
KEY_PLACES = (".key.path", ".key.recipient")
"""Ends of the settings that say where a key of the data is."""
SEE_HELP = " (see `encdl fit --help`)"


def refuse_secrets(argv: Sequence[str]) -> None:
    """Refuse a key or grant file in the place of a setting, before a library reads and perhaps quotes it.

    Settings that name one, such as `--data.key.path`, take it.
    """
    for option, word in zip(["", *argv], argv, strict=False):
        named, _, value = word.rpartition("=")
        if (named or option).startswith("--") and (named or option).endswith(KEY_PLACES):
            continue
        path = Path(value)
        try:
            with path.open("rb") as stream:
                secret = stream.read(len("encdl-")).startswith(b"encdl-")
        except (OSError, ValueError):
            continue
        if secret:
            raise UsageError(
                f"{path}: is a key or grant file: no setting but that of encrypted images takes one (--data.key.path)"
            )


def check_recipes(argv: Sequence[str]) -> None:
    """Refuse a file that is no recipe, before a library reads and quotes it."""
    for option, word in zip(argv, [*argv[1:], ""], strict=True):
        value = word if option == recipes.FILE else option.removeprefix(f"{recipes.FILE}=")
        path = Path(value)
        if value == option or not path.is_file():
            continue
        try:
            known = not RECIPE_PARTS.isdisjoint(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError):
            known = False
        if not known:
            raise UsageError(
                f"{path}: is no recipe, a YAML file with {', '.join(sorted(RECIPE_PARTS))} ({recipes.FILE})"
            )


def content_of(checkpoint: str | Path, option: str) -> dict[str, Any]:
    """The content of a checkpoint; raise `UsageError` if it is none."""
    try:
        content: dict[str, Any] = torch.load(checkpoint, weights_only=True, map_location="cpu", mmap=True)
        known = all(isinstance(name, str) for name in content["state_dict"])
    except Exception:  # torch raises nearly anything at files of another kind
        known = False
    if not known:
        raise UsageError(f"{checkpoint}: not a checkpoint of a training run, or a damaged one ({option})")
    return content


def check_goes_on(verb: str, place: str | None, checkpoint: str | None) -> None:
    """Refuse a run's place where it would not be read, and an untrained network be measured instead."""
    if place and verb != "fit" and not checkpoint:
        raise UsageError(
            f"{place}: {verb} does not look there, only fit does (--resume): give the checkpoint in it with --ckpt_path"
        )


class SettingError(UsageError):
    """A setting is wrong."""


def of_setting(message: str, error: BaseException | None) -> SettingError:
    """The error about a setting, in one line: its name, and the innermost cause that jsonargparse gives.

    Args:
        message: Of jsonargparse. Where a value fits none of several types it has lines for all of them behind the name.
        error: What jsonargparse raised, with its causes; of a value that fits none of several types, the first type's.
            Where one is a class with settings of its own, a parser of these has raised a `SettingError`.
    """
    cause, each = error, error
    while each is not None:
        if isinstance(each, SettingError):
            return each
        cause = each if isinstance(each, TypeError | ValueError) else cause  # what lies below says less
        each = each.__cause__
    name, *more = message.splitlines()
    return SettingError(one_line(f"{name} {cause}" if more and cause else message) + SEE_HELP)


def one_line(text: object) -> str:
    """A library's message in one line."""
    return " ".join(str(text).split())


def known_cause(error: BaseException | None) -> EncdlError | None:
    """The error of ours that a library wrapped, if there is one."""
    while error is not None and not isinstance(error, EncdlError):
        error = error.__cause__ or error.__context__
    return error


def of_checkpoint(error: Exception, checkpoint: str, option: str) -> Exception:
    """The error, or one line on the checkpoint that an option named if its parts are not what they should be."""
    if not restoring(error) or known_cause(error):
        return error
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{checkpoint}: no such checkpoint: check the name ({option})")
    why = f"{type(error).__name__}: {one_line(error)[:200]}"
    return UsageError(f"{checkpoint}: cannot be restored ({why}): it is damaged, or of another kind of run ({option})")


def restoring(error: BaseException) -> bool:
    """Whether it came while Lightning put back what a checkpoint holds."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    named = [(frame.f_globals.get("__name__", ""), frame.f_code.co_name) for frame in frames]
    return any(
        module.startswith("lightning.pytorch.utilities.migration")
        or (module == "lightning.pytorch.trainer.connectors.checkpoint_connector" and "dump" not in name)
        for module, name in named
    )


def raised_by_lightning(error: BaseException) -> bool:
    """Whether it is a check of settings or of a checkpoint by Lightning or torch; all else is a fault, shown whole."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not frames:
        return False
    module = str(frames[-1].f_globals.get("__name__", ""))
    if isinstance(error, RuntimeError):
        return frames[-1].f_code.co_name == "load_state_dict"  # of a checkpoint that does not fit
    if isinstance(error, TypeError):
        return str(module).startswith("lightning.fabric.accelerators.")  # of a number of devices
    return isinstance(error, ValueError) and str(module).startswith(("lightning.", "torch.optim."))
