"""docs/extending: each page's class is written, tried as the page tries it, and used by the page's commands.

By the modules in ENCDL_PLUGINS, as the pages say, and by the entry points of the last page's package, which is laid on
Python's path as an installer would.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from encdl.audit.attacks.base import ATTACKS
from encdl.audit.security import page as audit_page
from encdl.audit.security import plan
from encdl.ciphers import CIPHERS
from encdl.cli import main as encdl
from encdl.data.base import DATA_SETS
from encdl.files import codecs
from encdl.files.formats import FORMATS
from encdl.readers import BACKBONES
from encdl.utils import registry
from tests.audit.security import tiny
from tests.pages.typed import TRAINING, commands, python_blocks

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs" / "extending").glob("*.md"))}
KINDS = ("attack", "backbone", "cipher", "data-set", "format")
MODULES = {"attack": "one_pair", "backbone": "plain_net", "cipher": "odd_cipher", "data-set": "discs", "format": "pgm"}
REGISTRIES = (ATTACKS, BACKBONES, CIPHERS, DATA_SETS, FORMATS)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder on Python's path; what its modules register is forgotten afterwards, and they too."""
    for each in REGISTRIES:
        monkeypatch.setattr(each, "registered", dict(each.registered))
    monkeypatch.delenv(registry.PLUGINS, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    yield tmp_path
    forget()


def forget() -> None:
    """Have the next command start as a process of its own does: without the pages' modules and what they registered."""
    for module in MODULES.values():
        sys.modules.pop(module, None)
    for each in REGISTRIES:
        for name in [name for name, known in each.registered.items() if _module(known) in MODULES.values()]:
            del each.registered[name]
    codecs._codec.cache_clear()


def _module(known: object) -> str:
    return str(getattr(getattr(known, "load", known), "__module__", ""))


def write(page: str, folder: Path) -> list[str]:
    """Write the files of a page; gives its other blocks."""
    blocks = list(python_blocks(PAGES[page]))
    for title, code in blocks:
        if title:
            (folder / title).write_text(code)
    return [code for title, code in blocks if not title]


def install(folder: Path) -> None:
    """Lay the last page's package on Python's path, as an installer would."""
    for kind in KINDS:
        write(kind, folder)
    [text] = [code for title, code in python_blocks(PAGES["package"], "toml") if title == "pyproject.toml"]
    project = tomllib.loads(text)["project"]
    info = folder / f"encdl_example-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    registry._entry_points.cache_clear()


@pytest.fixture(params=["modules", "package"])
def brought(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder with all pages' modules, which `ENCDL_PLUGINS` or a package brings."""
    if request.param == "package":
        install(folder)
    else:
        for kind in KINDS:
            write(kind, folder)
        monkeypatch.setenv(registry.PLUGINS, ",".join(MODULES.values()))
    yield folder
    registry._entry_points.cache_clear()


def run(*words: str) -> int:
    """One command, of a process that has imported no page's module yet."""
    forget()
    return encdl(list(words))


def trained(page: str, folder: Path) -> str:
    """The checkpoint of the page's training command, after one step."""
    assert training(page, folder) == 0
    return str(next((folder / "runs").rglob("*.ckpt")))


def training(page: str, folder: Path) -> int:
    [command] = [each for each in commands(PAGES[page]) if "fit" in each.words]
    program, *words = [word for word in command.words if word != "PYTHONPATH=."]
    assert program == "encdl"
    crop = TRAINING.index("--data.crop")  # of ciphers alone: classifiers read whole images
    settings = TRAINING if page == "cipher" else TRAINING[:crop] + TRAINING[crop + 2 :]
    return run(*words, *settings, "--trainer.default_root_dir", str(folder / "runs"))


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(error)
    return error[-1]


def absent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the pages' modules are brought by; they stay importable."""
    monkeypatch.delenv(registry.PLUGINS, raising=False)
    for info in folder.glob("*.dist-info"):
        info.rename(folder / "no-info")
    registry._entry_points.cache_clear()


def test_the_pages() -> None:
    assert [*PAGES] == sorted((*KINDS, "package"))
    for kind, module in MODULES.items():
        assert any(f"ENCDL_PLUGINS={module}" in each.text for each in commands(PAGES[kind]))


@pytest.mark.parametrize("page", KINDS)
def test_the_code_runs(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.PLUGINS, MODULES[page])
    blocks = write(page, folder)
    assert blocks
    assert all("assert" in block for block in blocks)
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/extending/{page}.md, block {number}", "exec"), names)


def test_a_cipher_trains_exports_encrypts_and_decrypts(
    brought: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = trained("cipher", brought)
    assert run("export", checkpoint, "-o", "odd.pt") == 0
    assert run("samples", "images", "--count", "1") == run("keygen", "k.key") == 0
    assert run("encrypt", "images", "--key", "k.key", "--weights", "odd.pt", "--output", "safe") == 0
    [container] = (brought / "safe").rglob("*.encdl")
    capsys.readouterr()
    assert run("inspect", str(container)) == 0
    assert "odd" in capsys.readouterr().out
    assert run("decrypt", "safe", "--key", "k.key", "--weights", "odd.pt", "--output", "back") == 0
    [image], [back] = (brought / "images").rglob("*.png"), (brought / "back").rglob("*.png")
    assert back.read_bytes() == image.read_bytes()
    absent(brought, monkeypatch)
    for words in (
        ("export", checkpoint, "-o", "again.pt"),
        ("encrypt", str(image), "--key", "k.key", "--weights", "odd.pt"),
    ):
        assert run(*words) == 2
        assert "unknown cipher 'odd'" in (line := one_line(capsys))
        assert "entry point 'odd' of encdl.ciphers" in line
    assert "odd_cipher" not in sys.modules


def test_a_backbone_trains_and_predicts(
    brought: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = trained("backbone", brought)
    assert run("samples", "images", "--count", "1") == run("keygen", "k.key") == 0
    assert run("encrypt", "images", "--key", "k.key", "--output", "safe") == 0
    predict = ("predict", "safe", "--key", "k.key", "--reader", checkpoint)
    assert run(*predict) == 0
    absent(brought, monkeypatch)
    capsys.readouterr()
    assert run(*predict) == 2
    assert "unknown backbone 'PlainNet'" in (line := one_line(capsys))
    assert "entry point 'PlainNet' of encdl.backbones" in line
    assert "plain_net" not in sys.modules


@pytest.mark.parametrize("page", ["cipher", "backbone"])
def test_what_no_other_process_would_find_is_refused_before_training(
    page: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(page, folder)
    assert training(page, folder) == 2
    line = one_line(capsys)
    assert "is not registered, and its checkpoints could not be opened again" in line
    assert f"set ENCDL_PLUGINS={MODULES[page]}" in line
    assert not list(folder.rglob("*.ckpt"))


def test_a_data_set_trains_and_goes_by_its_name(brought: Path) -> None:
    trained("data-set", brought)
    few = (
        "--images",
        "2",
        "--tune-images",
        "0",
        "--repairs",
        "median",
        "--exact-images",
        "2",
        "--statistics-images",
        "2",
    )
    words = ("--data", "discs", "--weights", "keystream", "--device", "cpu", "-o", "record.json")
    assert run("evaluate", *words, *few) == 0
    assert "discs" in (brought / "record.json").read_text()


def test_an_attack_is_a_part_of_the_audit(brought: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(ATTACKS)[-1] == "one_pair"
    tiny.shrink(monkeypatch)
    for module in (plan, audit_page):
        monkeypatch.setattr(module, "ATTACKS", {"one_pair": ATTACKS["one_pair"]})
    words = ("audit", "--quick", "--device", "cpu", "--no-tracking", "-o", "out", "--reference", "fixed_xor")
    assert encdl(list(words)) == 1
    assert "attack one_pair learns nothing in the default mode" in (brought / "out" / "audit.json").read_text()
    tiny.clear()


def test_files_of_a_format_are_found_encrypted_and_restored(brought: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (brought / "images").mkdir()
    image = np.arange(40 * 48, dtype=">u2").reshape(40, 48)
    content = b"P5 48 40 65535\n" + image.tobytes()
    (brought / "images" / "a.pgm").write_bytes(content)
    assert run("keygen", "k.key") == run("encrypt", "images", "--key", "k.key", "--output", "safe") == 0
    assert [path.name for path in (brought / "safe").iterdir()] == ["a.pgm.encdl"]
    assert run("decrypt", "safe", "--key", "k.key", "--output", "back") == 0
    assert (brought / "back" / "a.pgm").read_bytes() == content
    absent(brought, monkeypatch)  # what is stored plainly comes back without the format's code
    assert run("decrypt", "safe", "--key", "k.key", "--output", "again") == 0
    assert (brought / "again" / "a.pgm").read_bytes() == content


@pytest.mark.parametrize("problem", ["raise RuntimeError('no\\ngood')", "import not_there", "raise SystemExit(3)"])
def test_a_broken_package_gives_one_line(
    problem: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(folder)
    for module in MODULES.values():
        (folder / f"{module}.py").write_text(problem)
    assert run("samples", "images", "--count", "1") == run("keygen", "k.key") == 0
    assert run("encrypt", "images", "--key", "k.key", "--output", "safe") == 0  # own names need no package
    (folder / "a.pgm").write_bytes(b"P5 4 4 255\n" + bytes(16))
    assert run("encrypt", "a.pgm", "--key", "k.key") == 2
    assert "package encdl-example: its format 'pgm' (pgm:PGM) cannot be loaded" in one_line(capsys)
    monkeypatch.setenv(registry.PLUGINS, "pgm")
    assert run("encrypt", "a.pgm", "--key", "k.key") == 2
    assert "ENCDL_PLUGINS: pgm cannot be imported" in one_line(capsys)
    registry._entry_points.cache_clear()
