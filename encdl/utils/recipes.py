"""Recipes that come with EncDL, by name.

In a checkout they are `experiments/NAME.yaml`; a wheel holds copies of them, `encdl/recipes/NAME.yaml`. Nothing here
imports more than the standard library before a file is read: a mistyped name is told at once.
"""

from __future__ import annotations

import difflib
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from encdl.utils.errors import UsageError

PACKAGE = Path(__file__).parents[1]
TRAINING = frozenset({"fit", "validate", "test", "submit", "sweep", "experiment"})
"""Verbs that take a recipe of a training."""
OTHERS = ("audit", "evaluate")
"""Verbs that take recipes of their own, named after them."""
STUDIES = ("functional-", "readers-")
"""Beginnings of names of recipes that `experiment` alone takes."""
VERBS = TRAINING.union(OTHERS)
MERGING = frozenset({"fit", "validate", "test"})
"""Verbs that take several files, later ones over earlier ones."""
BASE = "base"
"""The setting by which a recipe names another one, which it changes a little."""
OPTION, FILE, CHECKPOINT = "--recipe", "--config", "--ckpt_path"


def folder() -> Path:
    """The recipes' folder: of an installed package, or of the checkout that the package is used from."""
    installed = PACKAGE / "recipes"
    return installed if installed.is_dir() else PACKAGE.parent / "experiments"


def names(verb: str) -> list[str]:
    """The names of the recipes that a verb takes."""
    known = sorted(path.stem for path in folder().glob("*.yaml"))
    if verb in OTHERS:
        return [name for name in known if name.startswith(verb)]
    left_out = OTHERS if verb == "experiment" else (*OTHERS, *STUDIES)
    return [name for name in known if not name.startswith(left_out)]


def path_of(name: str, verb: str) -> Path:
    """The file of a recipe; relative where it is below the working directory, as records keep it.

    Raises:
        UsageError: The verb has no recipe of that name; tells the nearest.
    """
    known = names(verb)
    if name not in known:
        near = _near(name, known)
        told = f"did you mean {' or '.join(near)}?" if near else f"`encdl {verb} {OPTION}` lists them"
        raise UsageError(f"no recipe {name} for {verb}: {told} ({OPTION})")
    path = folder() / f"{name}.yaml"
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def check_file(path: str | Path, verb: str = "fit") -> None:
    """Refuse a recipe's file that is not there.

    Raises:
        UsageError: It is not there; tells the recipe of that name, or the nearest, that comes with EncDL.
    """
    if Path(path).is_file():
        return
    near = _near(Path(path).stem, names(verb))
    told = f"{OPTION} {near[0]} comes with EncDL" if near else f"`encdl {verb} {OPTION}` lists EncDL's own"
    kind = "file" if verb in OTHERS else "recipe"
    raise UsageError(f"{path}: no such {kind}: {told} ({FILE})")


def read(path: str | Path) -> Any:
    """The YAML of a file, over that of the recipe that it names as its base."""
    import yaml  # noqa: PLC0415

    return with_base(yaml.safe_load(Path(path).read_text(encoding="utf-8")))


def with_base(content: Any) -> Any:
    """Settings over those of the recipe that they name: `base: NAME`, without `.yaml`, of EncDL's own.

    Of a class that is another one than the base's (`class_path`), no settings are taken over.

    Raises:
        UsageError: There is no such recipe.
    """
    if not isinstance(content, dict) or not isinstance(content.get(BASE), str):
        return content
    own = dict(content)
    file = folder() / f"{own.pop(BASE)}.yaml"
    if not file.is_file():
        raise UsageError(f"{BASE}: {file.stem}: no recipe of that name comes with EncDL")
    return _over(read(file), own)


def _over(base: Any, own: Any) -> Any:
    kinds = [part.get("class_path") if isinstance(part, dict) else part for part in (base, own)]
    if not isinstance(base, dict) or not isinstance(own, dict) or kinds[1] not in (None, kinds[0]):
        return own
    return {**base, **{name: _over(base.get(name), value) for name, value in own.items()}}


def listing(verb: str) -> Iterator[str]:
    """A line for each recipe that a verb takes: its name, and how the comment on its top begins."""
    known = names(verb)
    widest = max(map(len, known), default=0)
    room = max(shutil.get_terminal_size((110, 24)).columns - widest - 2, 30)
    for name in known:
        lines = (folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        top = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
        about = " ".join(line.lstrip("# ") for line in lines[:top])
        yield f"{name:{widest}}  {textwrap.shorten(about, room, placeholder=' …')}"


def asks_for_listing(verb: str, words: Sequence[str]) -> bool:
    """Whether `--recipe` stands there without a name."""
    after = [*words[1:], "-"]  # what ends the words is no name
    return verb in VERBS and any(
        word == OPTION and following.startswith("-") for word, following in zip(words, after, strict=False)
    )


def resolved(verb: str, words: Sequence[str]) -> list[str]:
    """A verb's words with `--config FILE` in the place of `--recipe NAME`; every file that they name is there.

    Args:
        verb: Of the command line.
        words: All that stands after it; `asks_for_listing` is false of them.

    Raises:
        UsageError: An unknown recipe, a file that is not there, or two recipes for a verb that takes one.
    """
    if verb not in VERBS:
        return list(words)
    done: list[str] = []
    given: list[str] = []
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        whole = [word]
        if option in {OPTION, FILE, CHECKPOINT} and not equals:
            value = next(rest, "")
            whole += [value] if value else []
        if value and option == OPTION:
            whole = [FILE, str(path_of(value, verb))]
        elif value and option == FILE and not _is_text(value):
            check_file(value, verb)
        elif value and option == CHECKPOINT:
            _check_checkpoint(value)
        given += [option] if option in {OPTION, FILE} else []
        done += whole
    if OPTION in given and len(given) > 1 and verb not in MERGING:
        raise UsageError(f"{' and '.join(given)}: {verb} takes one recipe")
    return done


def _near(name: str, known: Sequence[str]) -> list[str]:
    """The names that one may have meant, the nearest first."""
    found = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    return found or [each for each in known if len(name) > 2 and name in each][:2]


def _check_checkpoint(value: str) -> None:
    """Refuse a checkpoint's file that is not there; what is no file's name (an address) is not read here."""
    if value.endswith(".ckpt") and ":" not in value and not Path(value).is_file():
        raise UsageError(f"{value}: no such checkpoint ({CHECKPOINT})")


def _is_text(value: str) -> bool:
    """Whether it may be settings themselves, or an address, which the training's parser takes too."""
    return any(mark in value for mark in ":{\n") and not Path(value).is_file()
