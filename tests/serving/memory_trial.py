"""Serves a volume of 16 bits on the CPU, with its grant and without any key, and prints as JSON what memory that takes.

`python -m tests.serving.memory_trial FOLDER 300x512x512 [WEIGHTS] [--record FILE]`, by default with the network that
comes with EncDL.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import torch
import yaml

from encdl import api
from encdl.ciphers.weights import load as load_cipher
from encdl.keys.signing import SigningKey
from encdl.readers import FunctionalStem, Reader
from encdl.serving.tokens import new_token
from encdl.utils import records
from tests.commands.memory_trial import SLICE_SEED, child, make
from tests.reader_checkpoint import save_reader, tiny_reader, unet

SIDE = 224


@contextmanager
def running(folder: Path, name: str, *words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server in a process of its own: its address, and the process, whose log is in NAME.log."""
    with (folder / f"{name}.log").open("w") as log:
        command = [sys.executable, "-m", "encdl", *words, "--port", "0"]
        process = subprocess.Popen(command, cwd=folder, stderr=log, text=True)
    try:
        for _ in range(1200):
            if found := re.search(r"http://[0-9.:]+", (folder / f"{name}.log").read_text()):
                yield found[0], process
                return
            assert process.poll() is None, (folder / f"{name}.log").read_text()
            time.sleep(0.1)
        raise AssertionError(f"{name} does not listen")
    finally:
        process.kill()
        process.wait()


def peak_mib(process: subprocess.Popen[str]) -> float:
    """The most resident memory that a process had."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return round(int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024, 1)


def answered(address: str, folder: Path, record: dict[str, str], shape: tuple[int, ...]) -> float:
    """Ask for the mask of the volume, and check it; seconds."""
    content = base64.b64encode((folder / "volume.encdl").read_bytes()).decode()
    body = json.dumps({"inputs": [record | {"container": content}]})
    started = time.perf_counter()
    headers = {"Content-Type": "application/json"}
    answer = requests.post(f"{address}/invocations", body, headers=headers, timeout=1500)
    assert answer.status_code == 200, answer.text[:300]
    [found] = answer.json()["predictions"]
    mask = gzip.decompress(base64.b64decode(found["nifti"]))
    assert len(mask) == 352 + shape[0] * shape[1] * shape[2]
    return round(time.perf_counter() - started, 1)


def trial(folder: Path, shape: tuple[int, ...], weights: str) -> dict[str, object]:
    make(folder / "volume.npy", shape)
    cipher, key = load_cipher(weights), folder / "k.key"
    child(["keygen", str(key)])
    words = ["encrypt", str(folder / "volume.npy"), "--key", str(key), "--device", "cpu", "--weights", weights]
    encrypted = child([*words, "--study", "S", "--readable", str(SIDE)])
    save_reader(folder / "r.ckpt", tiny_reader(unet), cipher, size=shape[1:])
    stem = FunctionalStem(1, (SIDE, SIDE), outputs=2, kernel=8, stride=8, width=4)
    torch.manual_seed(0)
    save_reader(folder / "f.ckpt", Reader(stem, unet(4, 3)).eval(), cipher, view="Functional", size=[SIDE, SIDE])
    SigningKey.generate().save(folder / "server.key")
    client: dict[str, Any] = {"token": new_token(folder / "token"), "readers": ["lesions"], "studies": ["S"]}
    policy = {"readers": {"lesions": "f.ckpt"}, "clients": {"ward": client}, "bits_per_image": 10**6}
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy | {"slices": shape[0]}))
    api.grant(key, file=folder / "volume.encdl").save(folder / "g.key")
    limits = ["--device", "cpu", "--max-mb", "1000"]
    with running(folder, "keyed", "serve", "--reader", "r.ckpt", *limits) as (address, process):
        seconds = answered(address, folder, {"grant": (folder / "g.key").read_text().strip()}, shape)
        served = {"seconds": seconds, "peak_mib": peak_mib(process)}
    words = ["keyserver", "--key", "k.key", "--policy", "policy.yaml", "--sign", "server.key"]
    with running(folder, "keyserver", *words) as (keyserver, giving):
        words = ["serve", "--reader", "f.ckpt", "--keyserver", keyserver, "--token-file", "token"]
        with running(folder, "keyless", *words, *limits) as (address, process):
            seconds = answered(address, folder, {}, shape)
            keyless = {"seconds": seconds, "peak_mib": peak_mib(process), "keyserver_peak_mib": peak_mib(giving)}
    log = (folder / "keyed.log").read_text(), (folder / "keyless.log").read_text()
    told = [len(re.findall(r"[0-9]+ % read", text)) for text in log]
    return {"shape": shape, "encrypt": encrypted, "serve": served, "keyless": keyless, "progress_lines": told}


def with_round_trip(folder: Path, shape: str, weights: str) -> dict[str, object]:
    """The figures of `tests.commands.memory_trial` too."""
    (folder / "files").mkdir()
    words = [sys.executable, "-m", "tests.commands.memory_trial", str(folder / "files"), shape, weights]
    files = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return {"files": files, "serving": trial(folder, sizes(shape), weights)}


def sizes(shape: str) -> tuple[int, ...]:
    return tuple(int(size) for size in shape.split("x"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("shape")
    parser.add_argument("weights", nargs="?", default="default")
    parser.add_argument("--record", type=Path, help="also measure files, and write a record of all")
    args = parser.parse_args()
    folder, started = args.folder.resolve(), time.monotonic()
    if args.record is None:
        print(json.dumps(trial(folder, sizes(args.shape), args.weights)))
        return
    metrics = with_round_trip(folder, args.shape, args.weights)
    content = records.record(
        args.record.stem,
        "serve",
        config="tests/serving/memory_trial.py",
        dataset=f"noise of {args.shape} voxels, int16",
        seeds=[SLICE_SEED],
        metrics=metrics,
        wall_s=time.monotonic() - started,
        device="cpu",
        cores=os.cpu_count(),
        load_average=os.getloadavg()[0],
    )
    records.write(args.record, content, force=True)
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
