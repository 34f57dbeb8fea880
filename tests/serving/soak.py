"""Four hosts against one key server, for minutes: `python -m tests.serving.soak FOLDER MINUTES [HOSTS]`.

The server and each host are processes of their own. Hosts read files one after another, each with a functional key that
is asked for anew; at the end the ledger's chain is gone through. Prints readings, errors, times, and the server's
memory at the beginning and the end.
"""

from __future__ import annotations

import contextlib
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

from encdl import api
from encdl.keys import Key
from encdl.keys.signing import PublicKey, SigningKey
from encdl.readers.functional_files import FunctionalPredictor
from encdl.serving.key_client import KeyServerClient
from encdl.serving.ledger import Ledger
from encdl.serving.tokens import new_token, read_token
from encdl.utils.errors import EncdlError
from tests.mni import mni_slice
from tests.reader_checkpoint import save_reader
from tests.readers.test_functional_files import CLASSES, SIDE, functional_reader

FILES = 24


def prepare(folder: Path, hosts: int) -> None:
    """Keys, files, a reader and a policy that lets all of them ask as often as they can."""
    folder.mkdir(parents=True)
    Key.generate().save(folder / "k.key")
    signing = SigningKey.generate()
    signing.save(folder / "s.key")
    signing.public.save(folder / "s.pub")
    save_reader(folder / "r.ckpt", functional_reader(), view="Functional", classes=CLASSES, size=[SIDE, SIDE])
    for number in range(FILES):
        image = mni_slice(50 + 3 * number, SIDE, SIDE)[0, 0].numpy()
        data = api.encrypt(image, folder / "k.key", readable=SIDE, signer=signing, study="S")
        (folder / f"{number}.encdl").write_bytes(data)
    client = {"readers": ["r"], "studies": ["S"], "requests_per_minute": 100_000}
    clients = {f"host{host}": {"token": new_token(folder / f"{host}.token"), **client} for host in range(hosts)}
    policy = {"readers": {"r": "r.ckpt"}, "clients": clients, "bits_per_image": 98 * 32}
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))


def host(folder: Path, number: int, url: str, minutes: float) -> None:
    """Read files until the time is over; prints what came of it as JSON."""
    public = PublicKey.load(folder / "s.pub")
    predictor = FunctionalPredictor.load(folder / "r.ckpt", server=public, owner=public)
    client = KeyServerClient(url, read_token(folder / f"{number}.token"))
    expected: dict[int, bytes] = {}
    times, errors, end = [], [], time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        file = (len(times) + number) % FILES
        started = time.perf_counter()
        try:
            answer = predictor.read(folder / f"{file}.encdl", lambda head: client.key_of(head, predictor.function.id))
            same = expected.setdefault(file, answer.logits.numpy().tobytes())
            if same != answer.logits.numpy().tobytes():
                errors.append(f"{file}: another answer")
        except EncdlError as error:
            errors.append(str(error))
        times.append(time.perf_counter() - started)
    print(json.dumps({"times": times, "errors": errors}))


def main(folder: Path, minutes: float, hosts: int) -> int:
    """Run all; the number of errors."""
    prepare(folder, hosts)
    words = ["keyserver", "--key", "k.key", "--policy", "policy.yaml", "--sign", "s.key", "--port", "0"]
    server = subprocess.Popen(
        [sys.executable, "-m", "encdl", *words], cwd=folder, stderr=(folder / "server.log").open("w")
    )
    try:
        url = None
        while url is None:
            time.sleep(0.5)
            assert server.poll() is None, (folder / "server.log").read_text()
            url = re.search(r"at (http://\S+),", (folder / "server.log").read_text())
        before = psutil.Process(server.pid).memory_info().rss
        own = [sys.executable, "-m", "tests.serving.soak", str(folder)]
        running = [
            subprocess.Popen([*own, str(minutes), "host", str(number), url[1]], stdout=subprocess.PIPE, text=True)
            for number in range(hosts)
        ]
        found = [json.loads(each.communicate()[0]) for each in running]
        after = psutil.Process(server.pid).memory_info().rss
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
    times = sorted(each for part in found for each in part["times"])
    errors = [each for part in found for each in part["errors"]]
    lines, _ = Ledger(folder / "policy.ledger").found
    print(
        f"{hosts} hosts, {minutes:g} minutes: {len(times):,} readings, {len(errors)} errors, median "
        f"{1e3 * statistics.median(times):.0f} ms, 99 % below {1e3 * times[int(0.99 * len(times))]:.0f} ms; "
        f"ledger {lines:,} lines, whole; server {before / 1e6:.0f} MB, then {after / 1e6:.0f} MB"
    )
    print(*errors[:5], sep="\n")
    return len(errors)


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[2:3] == ["host"]:
        host(Path(given[0]), int(given[3]), given[4], float(given[1]))
    else:
        sys.exit(bool(main(Path(given[0]), float(given[1]), int(given[2]) if len(given) > 2 else 4)))
