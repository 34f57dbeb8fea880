"""`encdl.utils.registry`: names, what brings them, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from encdl import readers
from encdl.ciphers import CIPHERS, AgileCipher
from encdl.keys.planes import PlaneSpec
from encdl.utils import registry
from encdl.utils.errors import UsageError, WeightsError
from encdl.utils.registry import Registry
from tests.reader_checkpoint import resnet


class Animal:
    """A base."""

    name: str


class Dog(Animal):
    """Registered by the tests."""


@pytest.fixture
def animals() -> Registry[type[Animal]]:
    return Registry("animal", "tests.animals", Animal, named=True)


def lay(folder: Path, package: str, points: str, code: str, module: str) -> None:
    """A package on Python's path, as an installer lays it."""
    info = folder / f"{package}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[tests.animals]\n{points}\n")
    (folder / f"{module}.py").write_text(code)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv(registry.PLUGINS, raising=False)
    return tmp_path


def test_names(animals: Registry[type[Animal]]) -> None:
    assert animals.register("dog")(Dog) is Dog
    assert animals.register("dog")(Dog) is Dog
    assert (animals["dog"], Dog.name, list(animals), len(animals)) == (Dog, "dog", ["dog"], 1)
    assert "cat" not in animals
    with pytest.raises(KeyError):
        animals["cat"]
    assert animals.unknown("cat").startswith("unknown animal 'cat': this version knows dog; ")


@pytest.mark.parametrize(
    ("name", "entry", "words"),
    [
        ("dog", type("Wolf", (Animal,), {}), "Wolf takes the name of .*Dog"),
        ("car", int, "<class 'int'> is no Animal"),
        ("Big Dog", type("Big", (Animal,), {}), "small letters"),
        ("cat", type("Lion", (Animal,), {"name": "lion"}), "has the name 'lion' already"),
    ],
)
def test_what_is_not_registered(animals: Registry[type[Animal]], name: str, entry: type, words: str) -> None:
    animals.register("dog")(Dog)
    with pytest.raises(UsageError, match=words):
        animals.register(name)(entry)
    assert list(animals) == ["dog"]


def test_entry_points_are_loaded_when_their_name_is_asked_for(animals: Registry[type[Animal]], folder: Path) -> None:
    code = "from tests.utils.test_registry import Animal\nclass Cat(Animal): pass\n"
    lay(folder, "cats", "cat = laid_cats:Cat\ndog = not_there:Dog", code, "laid_cats")
    animals.register("dog")(Dog)
    assert list(animals) == ["dog", "cat"]
    assert "laid_cats" not in sys.modules
    assert animals["cat"].name == "cat"
    assert animals["dog"] is Dog  # no package takes a name that is there
    assert animals.check(animals["cat"]) == "cat"
    del sys.modules["laid_cats"]


def test_two_packages_of_one_name(animals: Registry[type[Animal]], folder: Path) -> None:
    lay(folder, "cats", "cat = laid_one:Cat", "raise OSError", "laid_one")
    lay(folder, "more-cats", "cat = laid_two:Cat", "raise OSError", "laid_two")
    with pytest.raises(UsageError, match=r"(more-)?cats and (more-)?cats both bring it"):
        animals["cat"]


@pytest.mark.parametrize("code", ["x = 1", "import not_there", "Cat = 5", "1 / 0", "raise SystemExit"])
def test_a_broken_package_is_named_in_one_line(animals: Registry[type[Animal]], folder: Path, code: str) -> None:
    lay(folder, "cats", "cat = laid_broken:Cat", code, "laid_broken")
    assert list(animals) == ["cat"]
    with pytest.raises(UsageError, match=r"^[^\n]*cat[^\n]*$"):
        animals["cat"]
    sys.modules.pop("laid_broken", None)


def test_modules_that_the_environment_names(
    animals: Registry[type[Animal]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "named_ok.py").write_text("")
    (folder / "named_bad.py").write_text("1 / 0")
    monkeypatch.setenv(registry.PLUGINS, "named_ok, named_bad")
    with pytest.raises(UsageError, match=r"ENCDL_PLUGINS: named_bad cannot be imported .ZeroDivisionError"):
        animals["cat"]
    monkeypatch.setenv(registry.PLUGINS, "named_ok,")
    assert "cat" not in animals
    del sys.modules["named_ok"]


def test_what_another_process_finds(animals: Registry[type[Animal]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert CIPHERS.check(AgileCipher) == "agile"
    animals.register("dog")(Dog)
    with pytest.raises(UsageError, match=f"set ENCDL_PLUGINS={__name__}"):
        animals.check(Dog)
    monkeypatch.setenv(registry.PLUGINS, __name__)
    assert animals.check(Dog) == "dog"
    monkeypatch.delenv(registry.PLUGINS)
    monkeypatch.setattr(Dog, "__module__", "__main__")  # a notebook's own class, which it can open again
    assert animals.check(Dog) == "dog"


@pytest.mark.parametrize("name", ["antigravity.Thing", "antigravity", "antigravity:Thing", "../antigravity"])
def test_a_file_imports_nothing(name: str, tmp_path: Path) -> None:
    reader = readers.Reader(readers.PlainStem(1, 8), resnet(8, 2))
    content = {
        readers.READER_KEY: {
            "reader": reader.config() | {"backbone": name},
            "classes": ["a", "b"], "size": [8, 8], "weights_id": "0" * 16, "view": "Plaintext",
            "planes": PlaneSpec().to_dict(),
        },
        "state_dict": {},
    }  # fmt: skip
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match=f"a.ckpt: unknown backbone '{name}'"):
        readers.load(tmp_path / "a.ckpt")
    assert "antigravity" not in sys.modules


def test_own_names_look_for_no_package() -> None:
    code = (
        "import encdl.utils.registry as r; r.entry_points = None\n"
        "from encdl.ciphers import CIPHERS; from encdl.files import formats; from pathlib import Path\n"
        "CIPHERS['agile']; formats.ending_of('a.png')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
