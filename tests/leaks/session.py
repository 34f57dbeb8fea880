"""A process that runs every verb, with debug logging, Python's development mode and all local variables shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encdl.files import container, images
from encdl.keys.key import load_opener
from encdl.keys.passphrases import Passphrase
from tests.leaks.search import secrets_of
from tests.leaks.verbs import BROKEN, KEY_FILES, RIGHT, WORDS, WRONG
from tests.reader_checkpoint import resnet, save_reader, tiny_reader, unet
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
  class_path: encdl.training.tasks.encrypt.EncryptTask
  init_args:
    cipher: {class_path: encdl.ciphers.AgileCipher, init_args: {width: 4, blocks: 1}}
data:
  class_path: tests.training.tasks.support.FewSlices
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
from encdl.keys import passphrases
os.environ["MY_KEY"] = Path("k.key").read_text()
passphrases.COST = 14
"""


@dataclass(frozen=True)
class Session:
    """What the process printed and left behind."""

    folder: Path
    stdout: str
    stderr: str
    secrets: dict[str, bytes]


def session(folder: Path) -> Session:
    """Run everything in `folder`."""
    (folder / "tmp").mkdir()
    (folder / "tiny.yaml").write_text(CONFIG)
    make_store(folder / "runs")
    save_reader(folder / "classifier.ckpt", tiny_reader(resnet))
    save_reader(folder / "segmenter.ckpt", tiny_reader(unet))
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
        "PYTHONPATH": str(Path(__file__).parents[2]),
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
