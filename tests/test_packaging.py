"""What pip gets: a wheel and a source distribution that work outside the repository, with and without a C compiler."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "experiments").glob("*.yaml"))
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
COPIED = ("encdl", "experiments", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "Makefile")
NOT_COPIED = shutil.ignore_patterns("_compiled.*", "__pycache__")


def build(what: str, source: Path, **environment: str) -> tuple[Path, str]:
    """The distribution that a source tree gives, and what was told on the way."""
    target = source / "dist"
    done = subprocess.run(
        [sys.executable, "-c", BUILD, what, str(target)], cwd=source, env=os.environ | environment,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1], done.stderr


def run(wheel: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python with a wheel's package, elsewhere."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    environment = os.environ | {"PYTHONPATH": str(folder / "site")}
    # -P: a package in the working directory, as in a checkout, takes no part.
    return subprocess.run(
        [sys.executable, "-P", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files without what was built in it."""
    folder = tmp_path_factory.mktemp("source")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=NOT_COPIED)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def unpacked(source: Path) -> Path:
    """A source distribution, unpacked: what wheels are built from elsewhere."""
    archive, _ = build("build_sdist", source)
    with tarfile.open(archive) as stream:
        stream.extractall(source / "unpacked", filter="data")
    [folder] = (source / "unpacked").iterdir()
    return folder


@pytest.fixture(scope="module")
def pure(unpacked: Path) -> tuple[Path, str]:
    """The wheel of a machine without a C compiler."""
    copy = shutil.copytree(unpacked, unpacked.parent / "no-compiler")
    return build("build_wheel", copy, CC="/no/such/compiler", CXX="/no/such/compiler")


def test_a_wheel_from_the_source_distribution(unpacked: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here")
    wheel, told = build("build_wheel", unpacked)
    assert "no C compiler" not in told
    assert "-cp311-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for recipe in RECIPES:
            assert archive.read(f"encdl/recipes/{recipe.name}") == recipe.read_bytes()
    assert "encdl/_compiled.abi3.so" in names
    here = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "encdl").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("_compiled")
    }
    assert here <= names
    assert not [name for name in names if name.startswith(("tests/", "experiments/"))]


def test_without_a_compiler_the_wheel_is_for_every_machine(pure: tuple[Path, str]) -> None:
    wheel, told = pure
    assert wheel.name.endswith("-py3-none-any.whl")
    assert told.count("no C compiler here") == 1
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if "_compiled." in name]


def test_without_a_compiler_it_encrypts_and_says_so_once(pure: tuple[Path, str], tmp_path: Path) -> None:
    code = (
        # An editable installation would find the checkout's library for this package.
        "import sys; sys.meta_path = [each for each in sys.meta_path if 'editable' not in repr(each)]\n"
        "from encdl.cli import main; import encdl; print(encdl.__file__)\n"
        "codes = [main(words.split()) for words in ('samples s', 'keygen k.key',"
        " 'encrypt s/no-lesion --key k.key --output e', 'decrypt e --key k.key --output d')]\n"
        "print(codes)"
    )
    done = run(pure[0], tmp_path, "-c", code)
    lines = done.stdout.splitlines()
    assert lines[-1] == "[0, 0, 0, 0]", done.stderr
    assert str(tmp_path) in lines[0]
    assert done.stderr.count("without a C compiler") == 1
    [before, after] = [sorted((tmp_path / folder).rglob("*.png")) for folder in ("s/no-lesion", "d")]
    assert len(after) == len(before) > 0


def test_its_recipes_go_by_name(pure: tuple[Path, str], tmp_path: Path) -> None:
    done = run(pure[0], tmp_path, "-m", "encdl", "fit", "--recipe")
    assert "classifier-folder" in done.stdout, done.stderr
    done = run(pure[0], tmp_path, "-m", "encdl", "fit", "--recipe", "classifier-foldr")
    assert done.returncode == 2
    assert "did you mean classifier-folder" in done.stderr
    code = "from encdl.utils.recipes import path_of; print(path_of('encryptor', 'fit').resolve())"
    assert run(pure[0], tmp_path, "-c", code).stdout.strip() == str(
        tmp_path / "site" / "encdl" / "recipes" / "encryptor.yaml"
    )


def pins(text: str) -> dict[str, str]:
    """Normalised names of packages and their pinned versions."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, flags=re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_the_lock_has_what_the_constraints_and_the_package_name() -> None:
    lock_text = (ROOT / "requirements.lock").read_text()
    lock, constraints = pins(lock_text), pins((ROOT / "constraints.txt").read_text())
    assert {name: lock[name] for name in constraints if name in lock} == {
        name: version for name, version in constraints.items() if name in lock
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(each for extra in extras.values() for each in extra)]
    named = {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=]", each)[0]).lower() for each in asked} - {"encdl"}
    assert named <= set(lock)
    entries = re.split(r"^(?=[A-Za-z0-9])", lock_text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_image_runs_what_the_readme_says() -> None:
    """As far as that can be seen without a container engine: its commands are targets, its copied files exist."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    makes = [match for line in lines for match in re.findall(r"\bmake ([a-z-]+)", line)]
    targets = re.findall(r"^([a-z][a-z-]*):(?!=)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert "setup" in makes
    assert set(makes) <= set(targets)
    assert "/.venv" in (ROOT / ".dockerignore").read_text().splitlines()
