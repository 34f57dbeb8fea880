"""Kills runs over a folder at random moments.

`python -m tests.commands.kill_trials FOLDER TRIALS encrypt|decrypt|rekey|recipients [OPTION...]`, with its options.
Each run is a process of its own, forked from one that has imported everything already, so that a kill falls into the
work and not into the imports. After every kill it checks what lies there; at the end a last run completes. Prints one
JSON object.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from encdl.ciphers import weights
from encdl.cli import main
from encdl.files import container, images
from encdl.keys.key import Key
from encdl.keys.recipients import RecipientKey
from encdl.utils.errors import WrongKeyError

WEIGHTS = str(Path(__file__).parents[1] / "golden" / "containers" / "tiny.pt")
FILES = 12


def start(words: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        told = os.open("told.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(told, 1)
        os.dup2(told, 2)
        os._exit(main(words))
    return pid


def complete(words: list[str]) -> float:
    started = time.perf_counter()
    _, status = os.waitpid(start(words), 0)
    assert os.waitstatus_to_exitcode(status) == 0, (words, Path("told.txt").read_text())
    return time.perf_counter() - started


def killed(words: list[str], after: float) -> bool:
    """Whether the run was still going when it was killed."""
    pid = start(words)
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def seen(folder: Path) -> list[Path]:
    """Files that a user sees, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in seen(folder)}


class Trials:
    """The folders of one session: `in` with the originals, `enc` and `dec`."""

    def __init__(self, folder: Path) -> None:
        os.chdir(folder)
        torch.set_num_threads(1)
        rng = np.random.default_rng(0)
        for number in range(FILES):
            path = Path("in", f"{number % 3}", f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            images.write(path, rng.integers(0, 256, (48 + number, 64), dtype=np.uint8))
        self.originals = digests(Path("in"))
        self.keys = []
        for name in ("old.key", "new.key"):
            main(["keygen", name])
            self.keys.append(Key.load(name))
        weights.load(WEIGHTS)
        common = ["--weights", WEIGHTS, "--device", "cpu"]
        self.encrypt = ["encrypt", "in", "--key", "old.key", "--output", "enc", *common]
        self.decrypt = ["decrypt", "enc", "--key", "old.key", "--output", "dec", *common]
        main(["keygen", "--recipient", "one.key"])
        self.recipients = ["recipients", "add", "enc", "--key", "old.key", "--recipient", "one.pub"]
        self.rekey = ["rekey", "enc", "--key", "old.key", "--new-key", "new.key", *common]

    def check_encrypt(self) -> int:
        """Every file there is whole; how many there are."""
        found = seen(Path("enc")) if Path("enc").exists() else []
        for path in found:
            container.verify(path, self.keys[0])
        return len(found)

    def check_decrypt(self) -> int:
        found = digests(Path("dec")) if Path("dec").exists() else {}
        assert found.items() <= self.originals.items()
        return len(found)

    def check_recipients(self) -> int:
        """Every file is there, whole and under the owner's key; how many the recipient opens."""
        found, theirs = seen(Path("enc")), RecipientKey.load("one.key")
        assert len(found) == FILES
        for path in found:
            container.verify(path, self.keys[0])
        mine = [path for path in found if theirs.key_id in container.recipients_of(path)]
        for path in mine:
            container.verify(path, theirs)
        return len(mine)

    def check_rekey(self) -> int:
        """Every file is there, whole, and under one of the two keys; how many are under the new one."""
        found, new = seen(Path("enc")), 0
        assert len(found) == FILES
        for path in found:
            try:
                container.verify(path, self.keys[0])
            except WrongKeyError:
                container.verify(path, self.keys[1])
                new += 1
        return new

    def run(self, verb: str, trials: int, options: list[str]) -> dict[str, object]:
        words: list[str] = [*getattr(self, verb), *options]
        check: Callable[[], int] = getattr(self, f"check_{verb}")
        made = {"encrypt": "enc", "decrypt": "dec", "rekey": "enc", "recipients": "enc"}[verb]
        if verb != "encrypt":
            complete(self.encrypt)
            shutil.copytree("enc", "kept")
        whole = complete(words)
        rng, kills, partly, rounds, reach = random.Random(0), 0, 0, 0, whole
        fresh = True
        while kills < trials:
            if fresh:
                shutil.rmtree(made)
                if verb in ("rekey", "recipients"):
                    shutil.copytree("kept", "enc")
                rounds += 1
            hit = killed(words, rng.uniform(rng.choice((0, 0.8)) * reach, reach))
            reach *= 1.05 if hit else 0.9  # other processes come and go; most files are done near the end
            kills += hit
            count = check()
            partly += 0 < count < FILES
            assert digests(Path("in")) == self.originals
            fresh = count == FILES
        complete(words)
        assert check() == FILES
        hidden = [path for path in Path(made).rglob(".*") if path.is_file()]
        assert not hidden, hidden
        if verb == "rekey":
            self.decrypt[3] = "new.key"
        if verb != "decrypt":
            complete(self.decrypt)
        assert digests(Path("dec")) == self.originals
        return {"verb": verb, "kills": kills, "partly_done": partly, "rounds": rounds, "seconds_whole": whole}


if __name__ == "__main__":
    print(json.dumps(Trials(Path(sys.argv[1])).run(sys.argv[3], int(sys.argv[2]), sys.argv[4:])))
