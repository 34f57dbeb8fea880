"""A search for key bytes in whatever EncDL prints, logs, stores or raises.

One process runs every verb, some of them wrongly, some with a bug in the middle, with debug logging, Python's
development mode and tracebacks that show local variables. Then all that it printed and every file that it left
are searched for the secrets in any usual spelling.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
import logging
import os
import pickle
import pprint
import subprocess
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encdl import container, images
from encdl.cli import main
from encdl.keys import derive, locked
from encdl.keys.derive import ImageKeys
from encdl.keys.key import Grant, Key, load_opener
from encdl.keys.locked import Passphrase
from encdl.readers import ResNet18, UNet
from tests.reader_checkpoint import save_reader, tiny_reader
from tests.stores import make_store

DRIVER = """
import importlib, json, logging, sys, traceback
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from encdl.cli import main

def broken(*args, **kwargs):
    raise RuntimeError("a bug")

for words, place in json.load(sys.stdin):
    if place == "python":
        exec(words)
        continue
    print("$ encdl", *words, flush=True)
    module, _, name = place.rpartition(":")
    if place:
        owner = importlib.import_module(module)
        *path, name = name.split(".")
        for step in path:
            owner = getattr(owner, step)
        kept = getattr(owner, name)
        setattr(owner, name, broken)
    code = "an exception"
    try:
        code = main(words)
    except SystemExit as stop:
        code = stop.code
    except Exception as error:
        traceback.print_exc()
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        print("".join(told.format()), file=sys.stderr)
    if place:
        setattr(owner, name, kept)
    print(f"$ -> {code}", flush=True)
"""

CONFIG = """
model:
  class_path: encdl.tasks.encrypt.EncryptTask
  init_args:
    cipher: {class_path: encdl.ciphers.AgileCipher, init_args: {restorer_width: 4, restorer_blocks: 1}}
data:
  class_path: tests.tasks.support.FewSlices
trainer: {accelerator: cpu, max_steps: 1, enable_progress_bar: false, num_sanity_val_steps: 0}
"""

DAMAGE = """
from pathlib import Path
data = Path("scan.encdl").read_bytes()
Path("bad.encdl").write_bytes(data[:-50] + bytes(2) + data[-48:])
Path("cut.key").write_text(Path("k.key").read_text()[:-3])
os.environ["CUT_KEY"] = Path("cut.key").read_text()
"""

ENVIRONMENT = """
import os
from pathlib import Path
from encdl.keys import locked
os.environ["MY_KEY"] = Path("k.key").read_text()
locked.COST = 14
"""

WORDS = "Q7x!vLm2-tRz9_pKw4+hBn6=yGs8~dFj"
"""The passphrase of locked.key and locked.grant, and the name of the variable that holds it."""

KEYED = ["--key", "k.key"]
LOCKED = ["--key", "locked.key", "--passphrase-env", "WORDS"]
CLASSIFY, SEGMENT = (["--reader", f"{name}.ckpt", "--any-size"] for name in ("classifier", "segmenter"))
RIGHT: list[list[str]] = [
    ["keygen", "k.key"],
    ["keygen", "new.key"],
    ["keygen", "locked.key", "--passphrase-env", "WORDS"],
    ["encrypt", "scan.png", *KEYED, "--study", "S", "--postprocess", "both"],
    ["encrypt", "scan.png", *KEYED, "--nonce", "synthetic", "-o", "plain.encdl", "--map", "chacha20"],
    ["inspect", "scan.encdl"],
    ["inspect", "scan.encdl", "--json"],
    ["decrypt", "scan.encdl", *KEYED, "-o", "back.png"],
    ["decrypt", "scan.encdl", *KEYED, "-o", "salvaged.npy", "--salvage"],
    ["grant", *KEYED, "--study", "S", "-o", "study.grant"],
    ["grant", *KEYED, "--file", "plain.encdl", "-o", "file.grant"],
    ["grant", *LOCKED, "--study", "L", "-o", "locked.grant", "--days", "3"],
    ["passwd", "locked.grant", "--new-passphrase-env", "WORDS"],
    ["keyinfo", "study.grant", "--issuer", "k.key"],
    ["keyinfo", "locked.grant", "--passphrase-env", "WORDS"],
    ["encrypt", "scan.png", *LOCKED, "--study", "L", "-o", "locked.encdl"],
    ["decrypt", "locked.encdl", *LOCKED, "-o", "locked.png"],
    ["decrypt", "scan.encdl", "--key-env", "MY_KEY", "-o", "env.png"],
    ["decrypt", "scan.encdl", "--key", "study.grant", "-o", "study.png"],
    ["decrypt", "plain.encdl", "--key", "file.grant", "-o", "file.png"],
    ["rekey", "scan.encdl", *KEYED, "--new-key", "new.key", "-o", "moved.encdl"],
    ["predict", "scan.encdl", "plain.encdl", *KEYED, *CLASSIFY, "-o", "table.csv"],
    ["predict", "scan.encdl", "--key", "study.grant", *SEGMENT, "-o", "masks", "--overlay"],
    ["predict", "plain.encdl", "--key", "file.grant", *CLASSIFY],
    ["fit", "--config", "tiny.yaml"],
]
WRONG: list[list[str]] = [
    ["keygen", "k.key"],
    ["decrypt", "scan.encdl", "--key", "new.key", "-o", "b.png"],
    ["decrypt", "moved.encdl", *KEYED, "-o", "b.png"],
    ["decrypt", "plain.encdl", "--key", "study.grant", "-o", "b.png"],
    ["decrypt", "scan.encdl", "--key", "file.grant", "-o", "b.png"],
    ["decrypt", "bad.encdl", *KEYED, "-o", "b.png"],
    ["decrypt", "k.key", *KEYED, "-o", "b.png"],
    ["decrypt", "scan.encdl", "--key", "locked.key", "--passphrase-env", "MY_KEY", "-o", "b.png"],
    ["decrypt", "scan.encdl", "--key-env", "WORDS", "-o", "b.png"],
    ["decrypt", "scan.encdl", "--key-env", "CUT_KEY", "-o", "b.png"],
    ["decrypt", "scan.encdl", *LOCKED, "-o", "b.png"],
    ["keyinfo", "locked.grant", "--passphrase-env", "MY_KEY"],
    ["passwd", "new.key", "--passphrase-env", "WORDS", "--new-passphrase-env", "NONE"],
    ["decrypt", "scan.encdl", "--key", "cut.key", "-o", "b.png"],
    ["encrypt", "k.key", *KEYED, "-o", "b.encdl"],
    ["encrypt", "scan.png", "--key", "file.grant", "-o", "b.encdl"],
    ["encrypt", "scan.png", *KEYED, "--weights", "k.key", "-o", "b.encdl"],
    ["grant", "--key", "study.grant", "--study", "T", "-o", "b.grant"],
    ["grant", *KEYED, "--file", "k.key", "-o", "b.grant"],
    ["rekey", "k.key", *KEYED, "--new-key", "new.key"],
    ["inspect", "k.key"],
    ["export", "k.key", "-o", "w.pt"],
    ["evaluate", "--data", "k.key", "--exact-images", "1"],
    ["evaluate", "--weights", "k.key"],
    ["predict", "scan.encdl", "--key", "new.key", *CLASSIFY],
    ["predict", "plain.encdl", "--key", "study.grant", *SEGMENT, "-o", "b.masks"],
    ["predict", "k.key", "bad.encdl", *KEYED, *CLASSIFY],
    ["predict", "scan.encdl", *KEYED, "--reader", "k.key"],
    ["predict", "scan.encdl", *KEYED, *CLASSIFY, "--weights", "k.key"],
    ["predict", "scan.encdl", *KEYED, *CLASSIFY, "-o", "k.key", "--force"],
    ["predict", "scan.encdl", *KEYED, *SEGMENT, "-o", "k.key", "--force"],
    ["predict", "scan.encdl", "--key", "cut.key", *CLASSIFY],
    ["fit", "--config", "tiny.yaml", "--data.init_args", "k.key"],
    ["fit", "--config", "tiny.yaml", "--trainer", "study.grant"],
]
BROKEN: list[tuple[list[str], str]] = [
    (["encrypt", "scan.png", *KEYED, "-o", "b.encdl"], "encdl.ciphers.agile:AgileCipher.forward"),
    (["encrypt", "scan.png", *KEYED, "-o", "b.encdl", "--nonce", "synthetic"], "encdl.atomic:os.fsync"),
    (["decrypt", "scan.encdl", *KEYED, "-o", "b.png"], "encdl.ciphers.agile:AgileCipher._decrypt"),
    (["decrypt", "bad.encdl", *KEYED, "-o", "b.png", "--salvage"], "encdl.ciphers.agile:AgileCipher.logits"),
    (["decrypt", "scan.encdl", "--key", "study.grant", "-o", "b.png"], "encdl.formats:write"),
    (["rekey", "scan.encdl", *KEYED, "--new-key", "new.key"], "encdl.container:Writer.close"),
    (["grant", *KEYED, "--study", "T", "-o", "b.grant"], "encdl.keys.grant:Grant.save"),
    (["grant", *LOCKED, "--study", "T", "-o", "b.grant"], "encdl.keys.grant:Grant.save"),
    (["passwd", "locked.key", "--passphrase-env", "WORDS", "--remove"], "encdl.keys.key:Key.save"),
    (["keygen", "b.key", "--passphrase-env", "WORDS"], "encdl.keys.key:Key.save"),
    (["predict", "scan.encdl", *KEYED, *CLASSIFY], "encdl.readers:Reader.forward"),
    (["predict", "scan.encdl", *KEYED, *CLASSIFY], "encdl.ciphers.agile:AgileCipher._mask"),
    (["predict", "scan.encdl", *KEYED, *SEGMENT, "-o", "b.masks", "--overlay"], "encdl.images:write"),
    (["fit", "--config", "tiny.yaml"], "encdl.tasks.encrypt:EncryptTask.training_step"),
]  # fmt: skip


def spellings(secret: bytes) -> dict[str, bytes]:
    """What a leak of a secret, or of either half of it, could look like."""
    found: dict[str, bytes] = {}
    for half, piece in {"whole": secret, "start": secret[:16], "end": secret[16:]}.items():
        found[f"{half} raw"] = piece
        found[f"{half} raw reversed"] = piece[::-1]
        found[f"{half} hex"] = piece.hex().encode()
        found[f"{half} HEX"] = piece.hex().upper().encode()
        found[f"{half} hex of reversed"] = piece[::-1].hex().encode()
        found[f"{half} reversed hex"] = piece.hex()[::-1].encode()
        found[f"{half} base32"] = base64.b32encode(piece)[: len(piece) * 8 // 5]
        found[f"{half} list"] = ", ".join(map(str, piece)).encode()
        found[f"{half} repr"] = repr(piece)[2:-1].encode()
        found[f"{half} json repr"] = json.dumps(repr(piece)[2:-1])[1:-1].encode()
        found[f"{half} integer"] = str(int.from_bytes(piece, "big")).encode()
        found[f"{half} integer, low byte first"] = str(int.from_bytes(piece, "little")).encode()
        for shift in range(3):  # base64 of something that the piece begins 0, 1 or 2 bytes late in
            text = base64.b64encode(bytes(shift) + piece)
            cut = text[4 if shift else 0 : (len(piece) + shift) // 3 * 4]
            found[f"{half} base64, {shift} late"] = cut
            found[f"{half} base64url, {shift} late"] = cut.replace(b"+", b"-").replace(b"/", b"_")
    return found


def leaks(data: bytes, secrets: dict[str, bytes]) -> list[str]:
    """Which secrets are in `data`, and how they are spelt there."""
    return [
        f"{name}: {spelling}"
        for name, secret in secrets.items()
        for spelling, text in spellings(secret).items()
        if text in data
    ]


def contents(path: Path) -> Iterator[bytes]:
    """A file's bytes, and those of each member if it is an archive (checkpoints and weights are)."""
    yield path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def secrets_of(opener: Key | Grant, name: str, nonces: list[tuple[bytes, str]]) -> dict[str, bytes]:
    """Every secret that the files of a key derive from it."""
    found = {name: opener._secret}
    if isinstance(opener, Grant):
        return found
    for nonce, study in nonces:
        of_study = derive.study_secret(opener._secret, study)
        of_image = derive.image_secret(of_study, nonce)
        found[f"{name}, study {study}"] = of_study
        found[f"{name}, nonces of study {study}"] = derive.nonce_secret(of_study)
        found[f"{name}, image {nonce.hex()}"] = of_image
        for field, value in secret_fields(derive.image_keys(of_image, nonce)).items():
            found[f"{name}, {field} of {nonce.hex()}"] = value
    return found


def secret_fields(keys: ImageKeys) -> dict[str, bytes]:
    names = [field.name for field in dataclasses.fields(keys) if field.name != "nonce"]
    assert names == ["planes", "permutation", "diffusion", "authentication", "wrap"]
    return {name: getattr(keys, name) for name in names}


@dataclass(frozen=True)
class Session:
    """What the process printed and left behind."""

    folder: Path
    stdout: str
    stderr: str
    secrets: dict[str, bytes]


KEY_FILES = {"k.key", "new.key", "study.grant", "file.grant", "locked.key", "locked.grant"}


def session(folder: Path) -> Session:
    """Run everything in `folder`."""
    (folder / "tmp").mkdir()
    (folder / "tiny.yaml").write_text(CONFIG)
    make_store(folder / "runs")
    save_reader(folder / "classifier.ckpt", tiny_reader(ResNet18))
    save_reader(folder / "segmenter.ckpt", tiny_reader(UNet))
    images.write(folder / "scan.png", np.random.default_rng(0).integers(0, 256, (24, 30), dtype=np.uint8))
    right, wrong = ([(words, "") for words in tasks] for tasks in (RIGHT, WRONG))
    run(folder, [*right[:1], (ENVIRONMENT, "python"), *right[1:], (DAMAGE, "python"), *wrong, *BROKEN])
    stdout, stderr = (folder / "out").read_text(), (folder / "err").read_text()
    for name in ("out", "err", "cut.key"):
        (folder / name).unlink()
    headers = [container.read_header(path) for path in sorted(folder.glob("*.encdl"))]
    nonces = [(header.nonce_bytes, header.study) for header in headers]
    secrets = {"passphrase": WORDS.encode()}
    for name in sorted(KEY_FILES):
        secrets |= secrets_of(load_opener(folder / name, Passphrase(WORDS)), name, nonces)
    return Session(folder, stdout, stderr, secrets)


def run(folder: Path, tasks: Sequence[tuple[list[str] | str, str]]) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        "PYTHONMALLOC": "default",  # development mode would make every allocation slow
        "TMPDIR": str(folder / "tmp"),
        "WORDS": WORDS,
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        subprocess.run(
            [sys.executable, "-X", "dev", "-c", DRIVER],
            input=json.dumps(tasks),
            stdout=out,
            stderr=err,
            cwd=folder,
            env=environment,
            text=True,
            timeout=250,
            check=True,
        )


def every_command_ended_as_meant(session: Session) -> None:
    ends = [line.removeprefix("$ -> ") for line in session.stdout.splitlines() if line.startswith("$ -> ")]
    right, wrong, broken = ends[: len(RIGHT)], ends[len(RIGHT) : -len(BROKEN)], ends[-len(BROKEN) :]
    assert right == ["0"] * len(RIGHT), session.stderr[-3000:]
    assert wrong == ["2"] * len(WRONG)
    assert broken == ["an exception"] * len(BROKEN)
    assert session.stderr.count("RuntimeError: a bug") >= 2 * len(BROKEN)
    assert "opener = Key(id=" in session.stderr  # local variables are shown indeed
    assert session.stderr.count("DEBUG:") > 10


def nothing_printed_holds_a_secret(session: Session) -> None:
    assert len(session.secrets) > 20
    assert leaks(session.stdout.encode(), session.secrets) == []
    assert leaks(session.stderr.encode(), session.secrets) == []


def no_file_but_the_key_files_holds_a_secret(session: Session) -> None:
    paths = [path for path in session.folder.rglob("*") if path.is_file()]
    names = {path.relative_to(session.folder).as_posix() for path in paths}
    assert names >= {*KEY_FILES, "scan.encdl", "moved.encdl", "runs/mlflow.db"}
    assert names >= {"table.csv", "masks/scan.mask.png", "masks/scan.overlay.png"}
    assert any(name.endswith("last.ckpt") for name in names)
    assert any(name.endswith("config.yaml") for name in names)
    found = {
        path.name: leaks(data, session.secrets)
        for path in paths
        if path.name not in KEY_FILES
        for data in contents(path)
        if leaks(data, session.secrets)
    }
    assert found == {}


def a_key_file_holds_its_own_secret_only(session: Session) -> None:
    for name in sorted(KEY_FILES):
        secret = load_opener(session.folder / name, Passphrase(WORDS))._secret
        others = {other: value for other, value in session.secrets.items() if value != secret}
        content = (session.folder / name).read_bytes()
        assert leaks(content, session.secrets if name.startswith("locked") else others) == []
        assert (session.folder / name).stat().st_mode & 0o777 == 0o600


def nothing_is_left_of_a_failure(session: Session) -> None:
    assert not [path for path in session.folder.rglob("b.*") if path.is_file()]
    assert not list(session.folder.glob("b.masks/*"))
    assert not list(session.folder.glob(".*"))
    assert not list(session.folder.glob("*.tmp"))


def test_a_session_leaks_nothing(tmp_path: Path) -> None:
    """One test, because the session takes long and parallel workers would each have their own."""
    found = session(tmp_path)
    every_command_ended_as_meant(found)
    nothing_printed_holds_a_secret(found)
    no_file_but_the_key_files_holds_a_secret(found)
    a_key_file_holds_its_own_secret_only(found)
    nothing_is_left_of_a_failure(found)


def test_the_search_finds_every_spelling() -> None:
    """Of 32 bytes anywhere in a text; otherwise the tests above would prove nothing."""
    secret = np.random.default_rng(0).bytes(32)
    texts = [
        secret, secret[::-1], secret.hex(), secret.hex()[::-1], secret.hex().upper(), repr(secret), list(secret),
        int.from_bytes(secret, "big"), tuple(secret), base64.b64encode(b"ab" + secret + b"c"),
        base64.urlsafe_b64encode(b"a" + secret), base64.b64encode(secret[:16]), base64.b32encode(secret), secret[16:],
    ]  # fmt: skip
    for text in texts:
        data = b"before " + (text if isinstance(text, bytes) else str(text).encode()) + b" after"
        assert leaks(data, {"k": secret}), text
        assert not leaks(data, {"k": secret[::2] + secret[1::2]})


KEY = Key(np.random.default_rng(1).bytes(32))
NONCE = bytes(range(16))
PHRASE = Passphrase(KEY._secret.hex())
HOLDERS = {
    "passphrase": PHRASE,
    "key": KEY,
    "study grant": KEY.grant_study("S"),
    "file grant": KEY.grant_file(NONCE, "S"),
    "image keys": KEY.image_keys(NONCE, "S"),
}
SECRETS = secrets_of(KEY, "key", [(NONCE, "S")])


def _log(value: object) -> str:
    stream = io.StringIO()
    logger = logging.Logger("leaks")
    logger.addHandler(logging.StreamHandler(stream))
    logger.error("%s %r", value, [value])
    return stream.getvalue()


def _trace(value: object) -> str:
    def deep(mine: object) -> None:
        holder = {"mine": [mine]}
        raise LookupError(mine, holder)

    try:
        deep(value)
    except LookupError as error:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    return ""


SHOWS: list[Callable[[Any], str]] = [
    repr, str, lambda value: f"{value} {value!r} {value!s:>90}", lambda value: f"{value}", lambda value: f"{(value,)}",
    pprint.pformat, lambda value: json.dumps({"k": value}, default=repr), _log, _trace, lambda value: str(dir(value)),
    lambda value: str(hash(value)), lambda value: repr({value: [value]}), lambda value: str(np.array([value], object)),
]  # fmt: skip
COPIES: list[Callable[[Any], object]] = [
    *(lambda value, protocol=protocol: pickle.dumps(value, protocol) for protocol in range(6)),
    copy.copy, copy.deepcopy, lambda value: torch.save({"k": value}, io.BytesIO()), json.dumps, vars,
    lambda value: np.save(io.BytesIO(), np.array([value], object)),
]  # fmt: skip


@pytest.mark.parametrize("holder", HOLDERS)
def test_no_way_to_show_an_object_shows_its_secret(holder: str) -> None:
    for show in SHOWS:
        shown = show(HOLDERS[holder])
        assert shown
        assert leaks(shown.encode(), SECRETS) == []


@pytest.mark.parametrize("holder", HOLDERS)
def test_no_way_to_copy_an_object_works(holder: str) -> None:
    for duplicate in COPIES:
        with pytest.raises(TypeError) as caught:
            duplicate(HOLDERS[holder])
        assert leaks(str(caught.value).encode(), SECRETS) == []


def test_errors_that_hold_a_key_as_an_argument() -> None:
    for holder in HOLDERS.values():
        error = ValueError("bad", holder)
        assert leaks(f"{error} {error!r} {error.args}".encode(), SECRETS) == []
        with pytest.raises(TypeError):
            pickle.dumps(error)  # as a worker process would hand it on


def test_comparing_tells_nothing() -> None:
    with pytest.raises(AssertionError) as caught:
        assert Key.generate() == KEY
    assert leaks(str(caught.value).encode(), SECRETS) == []


MISTAKEN: list[list[str]] = [
    ["fit", "--config", "k.key"],
    ["fit", "--config", "tiny.yaml", "--model", "k.key"],
    ["fit", "--config", "tiny.yaml", "--data", "k.key"],
    ["fit", "--config", "tiny.yaml", "--ckpt_path", "k.key"],
]


@pytest.mark.parametrize("words", MISTAKEN, ids=" ".join)
def test_a_key_file_in_the_place_of_a_setting(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    KEY.save("k.key")
    Path("tiny.yaml").write_text(CONFIG)
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert leaks((out + err).encode(), SECRETS) == []


DEEP = [
    "encdl.keys.secret_files._check",
    "encdl.keys.locked.Scrypt",
    "encdl.keys.locked.AESGCM",
    "encdl.keys.derive.HKDFExpand",
    "encdl.keys.planes.byte_sequence",
    "encdl.keys.maps.integer_sequence",
    "encdl.postprocess.diffusion.byte_sequence",
    "encdl.postprocess.confusion.integer_sequence",
    "encdl.container.tags.hmac.new",
    "encdl.container.tags.HKDFExpand",
    "encdl.container.metadata.AESGCM",
]


@pytest.mark.parametrize("place", DEEP)
def test_a_bug_next_to_the_secret_itself(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """There the local variables are secret bytes; an ordinary traceback shows none of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORDS", WORDS)
    monkeypatch.setattr(locked, "COST", 14)
    KEY.save("k.key", passphrase=Passphrase(WORDS))
    images.write("scan.png", np.zeros((4, 5), np.uint8))

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    secrets = secrets_of(KEY, "key", [(NONCE, "")]) | {"passphrase": WORDS.encode()}
    monkeypatch.setattr("encdl.codec.random_nonce", lambda: NONCE)
    monkeypatch.setattr(place, broken)
    with pytest.raises(RuntimeError, match="a bug") as caught:
        main(["encrypt", "scan.png", "--key", "k.key", "--passphrase-env", "WORDS", "--postprocess", "both"])
    told = "".join(traceback.format_exception(caught.value)) + "".join(capfd.readouterr())
    assert leaks(told.encode(), secrets) == []
    assert not Path("scan.encdl").exists()
