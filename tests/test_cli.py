from __future__ import annotations

import argparse
import importlib.util
import pkgutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from encdl import __version__, cli
from encdl.utils.errors import ContainerError

HEAVY = ("torch", "lightning", "monai", "mlflow", "albumentations", "cv2", "PIL", "tifffile", "matplotlib", "scipy")


def python(code: str, *argv: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, cwd=cwd, timeout=60, check=False
    )


RUN = f"""
import sys
from encdl.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print("HEAVY", [name for name in {HEAVY} if name in sys.modules], code)
"""


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"], ["--version"], ["keygen", "k.key"], ["keygen", "--help"], ["encrypt", "--help"],
        ["decrypt", "--help"], ["rekey", "--help"], ["inspect", "--help"], ["grant", "--help"], ["predict", "--help"],
        ["inspect", "s.encdl"], ["grant", "--key", "m.key", "--file", "s.encdl", "-o", "f.grant"],
        ["grant", "--key", "m.key", "--study", "S", "-o", "s.grant"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_light_verbs_import_nothing_heavy_and_are_quick(tmp_path: Path, argv: list[str]) -> None:
    make_file(tmp_path)
    times = []
    for _ in range(3):  # other work on the machine may slow one of them
        for name in ("k.key", "f.grant", "s.grant"):
            (tmp_path / name).unlink(missing_ok=True)
        start = time.perf_counter()
        done = python(RUN, *argv, cwd=tmp_path)
        times.append(time.perf_counter() - start)
        assert done.stdout.splitlines()[-1] == "HEAVY [] 0", done.stdout + done.stderr
        if times[-1] < 1:
            break
    assert min(times) < 1


def make_file(folder: Path) -> None:
    from encdl.files import container
    from encdl.keys.key import Key
    from encdl.keys.planes import PlaneSpec

    key = Key.generate()
    key.save(folder / "m.key")
    metadata = container.Metadata("png").marked(key.owner_secret("S") or b"", bytes(16))
    header = container.Header(
        cipher="agile", weights="0" * 16, shape=(1, 1), dtype="uint8", layout="HW", nonce="0" * 32,
        postprocess="none", planes=PlaneSpec(), study="S", key_id=key.id, tile=(1, 1),
    )  # fmt: skip
    with (folder / "s.encdl").open("wb") as stream:
        writer = container.ContainerWriter(stream, header, metadata, key.image_keys(bytes(16), "S"))
        writer.chunk(b"x")
        writer.close()


def test_importing_the_package_imports_nothing_heavy() -> None:
    done = python(f"import sys, encdl, encdl.files.container; print([n for n in {HEAVY} if n in sys.modules])")
    assert done.stdout == "[]\n", done.stderr


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(f"\n    {verb}" in out for verb in cli.VERBS)
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"encdl {__version__}\n"


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_target_is_there(verb: str) -> None:
    module = cli.VERBS[verb].target.partition(":")[0]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not part of this build")
    if not cli.VERBS[verb].whole and "torch" not in module:
        command = pkgutil.resolve_name(cli.VERBS[verb].target)
        assert callable(command.add_arguments)
        assert callable(command.run)


@pytest.mark.parametrize(
    ("argv", "message", "told"),
    [
        ([], "required: VERB", "encdl"),
        (["nothing"], "invalid choice: 'nothing'", "encdl"),
        (["passwd"], "required: FILE", "encdl passwd"),
        (["passwd", "-o", "x"], "unrecognized arguments: -o", "encdl passwd"),
        (["inspect", "a", "--b"], "unrecognized arguments: --b", "encdl inspect"),
        (["encrypt", "a", "--key", "k", "--period", "x"], "invalid int value: 'x'", "encdl encrypt"),
        (
            ["decrypt", "a", "--ke", "k"],
            "one of the arguments --key --key-env --key-command --key-pkcs11 is required",
            "encdl decrypt",
        ),
    ],
)
def test_usage_errors_are_one_line(
    argv: list[str], message: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("encdl: error: ")
    assert message in err
    assert err.endswith(f"(see `{told} --help`)\n")
    assert err.count("\n") == 1


def fake(monkeypatch: pytest.MonkeyPatch, run: Callable[[Any], int], whole: bool = False) -> None:
    command = SimpleNamespace(add_arguments=lambda parser: None, run=run)
    monkeypatch.setattr(cli, "pkgutil", SimpleNamespace(resolve_name=lambda target: run if whole else command))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ContainerError("a.encdl: is\ncut"), "a.encdl: is cut"),
        (PermissionError(13, "Permission denied", "a.png"), "a.png: Permission denied: nothing was written"),
        (OSError(28, "No space left on device"), "No space left on device: nothing was written"),
        (OSError("odd"), "odd: nothing was written"),
        (MemoryError(), "out of memory"),
        (ModuleNotFoundError("No module named 'monai'", name="monai.data"), "monai is not installed"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, message: str
) -> None:
    def run(args: Any) -> int:
        raise error

    fake(monkeypatch, run)
    assert cli.main(["inspect"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"encdl: error: {message}")
    assert err.count("\n") == 1


def test_an_interruption_is_exit_code_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: Any) -> int:
        raise KeyboardInterrupt

    fake(monkeypatch, run)
    assert cli.main(["inspect"]) == 130
    assert capsys.readouterr().err == "encdl: interrupted\n"


def test_programming_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args: Any) -> int:
        raise ZeroDivisionError

    fake(monkeypatch, run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["inspect"])


@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_training_gets_its_words_untouched(monkeypatch: pytest.MonkeyPatch, verb: str, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").touch()
    seen: list[list[str]] = []
    fake(monkeypatch, lambda argv: seen.append(argv) or 0, whole=True)
    assert cli.main([verb, "--config", "a.yaml", "--help", "--x.y=1"]) == 0
    assert seen == [[verb, "--config", "a.yaml", "--help", "--x.y=1"]]


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    make_file(tmp_path)
    done = subprocess.run(
        f'"{sys.executable}" -m encdl inspect s.encdl --json | true; echo "${{PIPESTATUS[0]}}"',
        shell=True, executable="/bin/bash", capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.strip() == "0"


def test_names_with_odd_bytes(tmp_path: Path) -> None:
    code = "import sys; from encdl.cli import main; sys.exit(main(['inspect', 'a\\udcff\\n.encdl']))"
    done = python(code, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "window", "overlay"),
    [
        (["--window", "lung"], "lung", None),
        (["--window", "40", "400"], (40, 400), None),
        (["--window", "-600", "1500", "--overlay"], (-600, 1500), "ciphertext"),
        (["--window", "-600,1500"], (-600, 1500), None),
        (["--window=40,400", "--overlay", "image"], (40, 400), "image"),
        (["--overlay"], None, "ciphertext"),
        (["--overlay=image"], None, "image"),
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["before", "behind", "--"])
def test_options_leave_the_files_behind_them_alone(words: list[str], window: Any, overlay: Any, place: str) -> None:
    from encdl.commands.reader_options import window_of

    files = ["folder", "7"] if place != "behind" else []
    first = ["predict", "--key", "k.key", "--reader", "r.ckpt", *(["folder", "7"] if place == "behind" else [])]
    args = cli._parser("predict").parse_args([*first, *words, *(["--"] if place == "--" else []), *files])
    assert args.paths == [Path("folder"), Path("7")]
    assert (window_of(args.window), args.overlay) == (window, overlay)


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        for each in action.choices.values() if isinstance(action, argparse._SubParsersAction) else ():
            yield from parsers(each)


@pytest.mark.parametrize("verb", [verb for verb, entry in cli.VERBS.items() if not entry.whole])
def test_no_option_can_swallow_a_file(verb: str) -> None:
    """Where a command takes files, options take a fixed number of words, or say themselves where they end."""
    for parser in parsers(cli._parser(verb)):
        plain = [each for each in parser._actions if not each.option_strings]
        if any(not isinstance(each, argparse._SubParsersAction) for each in plain):
            open_ended = [each for each in parser._actions if each.option_strings and each.nargs in {"+", "*", "?"}]
            assert [each.option_strings for each in open_ended if not hasattr(each, "joined")] == []
