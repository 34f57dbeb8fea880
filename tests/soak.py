"""Days of use in minutes: random runs on random files, two at a time, stopped by random signals.

`python -m tests.soak FOLDER MINUTES [SEED]` (`make soak`) works in a new folder. Runs of encrypt, decrypt, rekey,
predict and fit share files, keys, MLflow's data base and the places of trainings. At the end every original must be as
it was, every container must open, no plaintext may lie about, and the data base must be sound. Prints what was done and
each finding; exit code 1 if there is one.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pydicom

from encdl.cli import main
from encdl.files import container, images
from encdl.keys.key import Key
from encdl.utils.errors import ContainerError, WrongKeyError
from tests import processes
from tests.files.formats.support import noise
from tests.files.formats.test_names import files
from tests.reader_checkpoint import resnet, save_reader, smooth, tiny_reader
from tests.runs import DRAWING

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU, signal.SIGKILL)
CODES = {**{each: 128 + each for each in SIGNALS}, signal.SIGKILL: -9}
KEYS = ("a.key", "b.key", "c.key")
AT_ONCE = 2
ENDS_S = 90.0
"""A run that was asked to end must have ended after these."""
SAMPLES = ("MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPEG2000.dcm", "reportsi.dcm", "SC_rgb_jpeg.dcm")


def digests(folder: Path) -> dict[str, str]:
    """Of the files that a user sees."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".part"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


class Soak:
    """A folder, what was done in it, and what was found."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.turn, self.busy = threading.Lock(), set[str]()
        self.count: collections.Counter[str] = collections.Counter()
        self.findings: list[str] = []
        self.number = self.killed_fits = 0
        self.before: dict[str, bool] = {}  # whether a killed run left something, which goes with the next one
        os.chdir(folder)
        for name in KEYS:
            main(["keygen", name])
        Path("tiny.yaml").write_text(DRAWING % 0.02)
        save_reader("reader.ckpt", tiny_reader(resnet))
        self.make_originals()
        self.originals = digests(Path("in"))

    def make_originals(self) -> None:
        Path("made").mkdir()
        test_files = Path(pydicom.__file__).parent / "data" / "test_files"
        for number, data in enumerate(files(Path("made")).values()):
            self.put(f"kinds/{number % 3}/{number}{self.random.choice(('', '.png', '.dcm', '.x'))}", data)
        for name in SAMPLES:
            self.put(f"cd/{name}", (test_files / name).read_bytes())
        self.put("cd/report.pdf", b"%PDF-1.7 text")
        for number in range(8):
            images.write(Path("made", "a.png"), smooth(number), force=True)
            self.put(f"scans/{number}.png", Path("made", "a.png").read_bytes())
            side = self.random.randrange(1, 700)
            np.save("made/a.npy", noise((self.random.randrange(1, 4), side, side), "int16", number))
            self.put(f"large/{number}.npy", Path("made", "a.npy").read_bytes())
        shutil.rmtree("made")

    def put(self, name: str, data: bytes) -> None:
        path = Path("in", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    # ---- one run after the other, in AT_ONCE threads

    def until(self, end: float) -> None:
        while time.monotonic() < end:
            try:
                self.one()
            except Exception:
                self.find(traceback.format_exc())

    def one(self) -> None:
        with self.turn:
            self.number += 1
            number, rng = self.number, random.Random(self.random.random())
        verb = rng.choice(["encrypt", "encrypt", "decrypt", "decrypt", "rekey", "rekey", "predict", "fit", "fit"])
        words, check = getattr(self, verb)(rng, number)
        log = f"logs/{number}"
        temporary = self.folder / "tmp" / str(number)
        temporary.mkdir(parents=True)
        Path("logs").mkdir(exist_ok=True)
        process = processes.start([verb, *words], self.folder, log, {"TMPDIR": str(temporary)})
        sent = self.disturb(process, Path(log), rng, 12.0 if verb == "fit" else 4.0)
        self.judge(number, verb, words, process.exitcode, sent, temporary)
        check(sent != signal.SIGKILL)

    def disturb(self, process: BaseProcess, log: Path, rng: random.Random, typical_s: float) -> signal.Signals | None:
        """Let it run for a while, and perhaps stop it; gives the signal that met it."""
        sent = None
        if rng.random() < 0.75:
            while not log.exists() and not processes.ended(process):
                time.sleep(0.01)
            if not processes.ended(process, 0.1 + rng.random() ** 2 * typical_s):
                sent = rng.choice(SIGNALS)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid or 0, sent)
        if not processes.ended(process, ENDS_S if sent else 600):
            self.find(f"{log}: still runs after {sent and sent.name}")
            process.kill()
            processes.ended(process, 60)
            sent = signal.SIGKILL
        return sent

    def judge(
        self, number: int, verb: str, words: list[str], code: int | None, sent: signal.Signals | None, temporary: Path
    ) -> None:
        said = Path(f"logs/{number}").read_text() if Path(f"logs/{number}").exists() else ""
        said = said.partition("\nProcess ForkServerProcess")[0]  # stopped as Python itself was ending
        named = f"run {number}: {verb} {' '.join(words)} ({sent.name if sent else 'undisturbed'}, exit code {code})"
        with self.turn:
            self.count[verb] += 1
            self.count[f"{verb}: exit code {code}"] += 1
            self.count[sent.name if sent else "undisturbed"] += 1
            self.killed_fits += verb == "fit" and sent == signal.SIGKILL
        if code not in {0, 1, 2, *([CODES[sent]] if sent else [])}:
            self.find(f"{named}: {said[-1500:]}")
        elif "Traceback" in said:
            self.find(f"{named}: a traceback: {said[-3000:]}")
        left = [path for path in temporary.rglob("*") if path.is_file()]
        if left and sent != signal.SIGKILL:
            self.find(f"{named}: left temporary files {left}")
        shutil.rmtree(temporary, ignore_errors=True)

    def find(self, text: str) -> None:
        with self.turn:
            self.findings.append(text)
            print("FOUND", text, flush=True)

    # ---- what a run does, and what must be so after it

    def encrypt(self, rng: random.Random, number: int) -> tuple[list[str], Callable[[bool], None]]:
        part = rng.choice(("", "/kinds", "/cd", "/large", "/scans"))
        words = [f"in{part}", "--output", f"enc{part}", "--key", self.some_key(rng), "--carry-others"]
        return [*words, *rng.choice(([], ["--jobs", "2"], ["--wrap", "aes"], ["--force"]))], lambda _: None

    def decrypt(self, rng: random.Random, number: int) -> tuple[list[str], Callable[[bool], None]]:
        with self.turn:  # goes on with what a stopped run began, but not beside it
            free = [path for path in ("dec/0", "dec/1", "dec/2") if path not in self.busy]
            place = rng.choice(free)
            self.busy.add(place)
        for folder in ("enc", "dec"):
            Path(folder).mkdir(exist_ok=True)

        def check(tidy: bool) -> None:
            wrong = digests(Path(place)).items() - self.originals.items()
            if wrong:
                self.find(
                    f"run {number}: {place} holds {sorted(name for name, _ in wrong)}, which are not as they were"
                )
            if tidy and (left := list(Path(place).rglob("*.part"))) and not self.before.get(place):
                self.find(f"run {number}: plaintext left: {left}")
            self.before[place] = bool(list(Path(place).rglob("*.part")))
            if rng.random() < 0.5:
                shutil.rmtree(place, ignore_errors=True)
                self.before[place] = False
            with self.turn:
                self.busy.discard(place)

        words = ["enc", "--output", place, "--key", self.some_key(rng)]
        return [*words, *rng.choice(([], ["--jobs", "2"]))], check

    def some_key(self, rng: random.Random) -> str:
        """Mostly one that opens a file."""
        found = sorted(Path("enc").rglob("*.encdl"))
        with contextlib.suppress(ContainerError):
            if found and rng.random() < 0.9:
                key = container.read_header(rng.choice(found)).key_id
                return next(name for name in KEYS if Key.load(name).key_id == key)
        return rng.choice(KEYS)

    def rekey(self, rng: random.Random, number: int) -> tuple[list[str], Callable[[bool], None]]:
        Path("enc").mkdir(exist_ok=True)
        old = self.some_key(rng)
        new = rng.choice([name for name in KEYS if name != old])
        return [rng.choice(("enc", "enc/scans", "enc/kinds")), "--key", old, "--new-key", new], lambda _: None

    def predict(self, rng: random.Random, number: int) -> tuple[list[str], Callable[[bool], None]]:
        output = Path(f"answers/{number}.csv")
        output.parent.mkdir(exist_ok=True)

        def check(_: bool) -> None:
            if output.exists() and not all(row["predicted"] for row in csv.DictReader(output.open())):
                self.find(f"run {number}: {output} is no whole table")

        words = ["enc/scans", "--key", self.some_key(rng), "--reader", "reader.ckpt", "--device", "cpu"]
        return [*words, "--output", str(output)], check

    def fit(self, rng: random.Random, number: int) -> tuple[list[str], Callable[[bool], None]]:
        places = ([], ["--resume", "places/0"], ["--resume", "places/1"])
        return ["--config", "tiny.yaml", *rng.choice(places), "--resume_every", "5"], lambda _: None

    # ---- the end

    def end(self) -> None:
        """Nothing is disturbed any more: all must be there, and all must go on."""
        if digests(Path("in")) != self.originals:
            self.find("originals were changed")
        self.count["containers opened"] = sum(map(self.opens, sorted(Path("enc").rglob("*.encdl"))))
        for key in KEYS[1:]:
            self.complete("rekey", "enc", "--key", key, "--new-key", "a.key", codes=(0, 1, 2))
        self.complete("encrypt", "in", "--output", "enc", "--key", "a.key", "--carry-others")
        shutil.rmtree("dec", ignore_errors=True)
        self.complete("decrypt", "enc", "--output", "dec", "--key", "a.key")
        if digests(Path("dec")) != self.originals:
            self.find("what is decrypted in the end is not what was encrypted")
        for place in ("places/0", "places/1"):
            self.complete("fit", "--config", "tiny.yaml", "--resume", place, "--resume_every", "5")
        for pattern in ("in/**/.*", "dec/**/.*", "enc/**/.*", "answers/.*"):
            if left := [path for path in self.folder.glob(pattern) if path.is_file()]:
                self.find(f"left: {left}")
        self.check_store()
        for verb in ("encrypt", "decrypt", "rekey", "predict", "fit"):  # or nothing was tried
            if self.count[verb] > 10 and not self.count[f"{verb}: exit code 0"] + self.count[f"{verb}: exit code 1"]:
                self.find(f"no {verb} ever did anything")

    def opens(self, path: Path) -> bool:
        for key in map(Key.load, KEYS):
            try:
                container.verify(path, key)
            except WrongKeyError:
                continue
            except ContainerError as error:
                self.find(f"{path}: is refused: {error}")
                return False
            return True
        self.find(f"{path}: no key opens it")
        return False

    def complete(self, *words: str, codes: tuple[int, ...] = (0,)) -> None:
        code = processes.run(list(words), self.folder, 600)
        if code not in codes:
            self.find(f"at last {' '.join(words)} gives {code}: {Path('log').read_text()[-3000:]}")

    def check_store(self) -> None:
        with contextlib.closing(sqlite3.connect("runs/mlflow.db")) as base:
            [(said,)] = base.execute("PRAGMA integrity_check").fetchall()
            states = collections.Counter(state for (state,) in base.execute("SELECT status FROM runs"))
        self.count.update({f"runs {state}": count for state, count in states.items()})
        if said != "ok":
            self.find(f"MLflow's data base: {said}")
        if states["RUNNING"] > self.killed_fits:
            self.find(f"{states['RUNNING']} runs are said to be running, and {self.killed_fits} were killed")


def soak(folder: Path, minutes: float, seed: int = 0) -> Soak:
    """Run, stop, check."""
    soak = Soak(folder, seed)
    end = time.monotonic() + 60 * minutes
    threads = [threading.Thread(target=soak.until, args=(end,)) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    soak.end()
    return soak


if __name__ == "__main__":
    place = Path(sys.argv[1]).absolute()
    place.mkdir(parents=True)
    for each in CODES.keys() - {signal.SIGKILL}:  # whatever a shell lets its background ignore
        signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
    done = soak(place, float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else int(time.time()))
    print(json.dumps(dict(sorted(done.count.items())), indent=1))
    print("\n".join(done.findings) or "nothing found")
    sys.exit(bool(done.findings))
