"""Loads `encdl serve` with several clients on this machine and times every answer: `make bench-serve READER=CKPT`.

Starts the server itself, at 127.0.0.1 on a free port, and ends it. Every request carries another image of noise,
encrypted under another key, with a grant for it alone. Writes experiments/results/serve-cpu.json (or serve-cuda.json).
Times compare only within one record.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any

import numpy as np
import requests

from encdl.files import container
from encdl.files.settings import Settings
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec
from encdl.readers.predictor import Predictor
from encdl.utils import records

RESULTS = Path(__file__).parent / "results"
EDGES_MS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
"""Upper edges of the histogram; what took longer has a bin of its own."""
START_S = 300
IMAGES = 16


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reader", required=True, metavar="CKPT")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--requests", type=int, default=400, help="in all, at the most (default: 400)")
    parser.add_argument("--seconds", type=float, default=60, help="at the most (default: 60)")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    started = time.monotonic()
    predictor = Predictor.load(args.reader)
    bodies = [body(predictor) for _ in range(IMAGES)]
    with server(args.reader, args.device) as address:
        outcomes, wall_s = load(address, bodies, args.clients, args.requests, args.seconds)
    metrics = summed_up(outcomes, wall_s, args.clients)
    print(told(metrics))
    name = f"serve-{args.device}"
    content = records.record(
        name,
        "serve",
        config="experiments/bench_serve.py",
        dataset=f"uniform noise, {predictor.size[0]} x {predictor.size[1]}, a fresh key and grant each",
        seeds=[],
        metrics=metrics,
        wall_s=time.monotonic() - started,
        device=args.device,
        reader=predictor.reader.config(),
        cores=os.cpu_count(),
        load_average=os.getloadavg()[0],
    )
    output = args.output or RESULTS / f"{name}.json"
    records.write(output, content, force=True)
    print(f"record: {output}")
    if metrics["errors"]:
        sys.exit(1)


def body(predictor: Predictor) -> dict[str, Any]:
    """A request: one image of noise under a key of its own."""
    key, channels = Key.generate(), predictor.reader.stem.channels
    shape = predictor.size if channels == 1 else (*predictor.size, channels)
    noise = np.random.default_rng().integers(0, 256, shape, dtype=np.uint8)
    with TemporaryDirectory() as folder:
        file, grant = Path(folder, "x.encdl"), Path(folder, "x.grant")
        file.write_bytes(predictor.codec.encrypt_array(noise, key, Settings(PlaneSpec())))
        key.grant_file(container.read_header(file).nonce_bytes).save(grant)
        record = {"container": base64.b64encode(file.read_bytes()).decode(), "grant": grant.read_text().strip()}
    return {"dataframe_records": [record]}


@contextmanager
def server(reader: str, device: str) -> Iterator[str]:
    """`encdl serve` in a process of its own; gives its address when it answers."""
    command = [sys.executable, "-m", "encdl", "serve", "--reader", reader, "--device", device, "--port", "0"]
    with NamedTemporaryFile("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield _address(process, Path(log.name))
        finally:
            process.terminate()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        found = re.search(r"http://\S+/invocations", log.read_text())
        if found:
            return found.group()
        time.sleep(0.2)
    sys.exit(f"the server did not start: {log.read_text()[-500:]}")


def load(
    address: str, bodies: list[dict[str, Any]], clients: int, count: int, seconds: float
) -> tuple[list[tuple[int, float]], float]:
    """Status and milliseconds of every request, and the seconds that all took; a status 0 is no answer at all."""
    requests.post(address, json=bodies[0], timeout=60)  # the first one warms up
    begun = time.monotonic()

    def client(number: int) -> list[tuple[int, float]]:
        found = []
        with requests.Session() as session:
            for turn in range(number, count, clients):
                if time.monotonic() - begun > seconds:
                    break
                started = time.perf_counter()
                try:
                    status = session.post(address, json=bodies[turn % len(bodies)], timeout=60).status_code
                except requests.RequestException:
                    status = 0
                found.append((status, 1e3 * (time.perf_counter() - started)))
        return found

    with ThreadPoolExecutor(clients) as pool:
        outcomes = [each for found in pool.map(client, range(clients)) for each in found]
    return outcomes, time.monotonic() - begun


def summed_up(outcomes: list[tuple[int, float]], wall_s: float, clients: int) -> dict[str, Any]:
    """Figures of all requests; latencies in milliseconds."""
    times = sorted(ms for _, ms in outcomes)
    edges = (0, *EDGES_MS, float("inf"))
    histogram = {f"{low:g}-{high:g}": sum(low <= ms < high for ms in times) for low, high in pairwise(edges)}
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {
        "clients": clients,
        "requests": len(outcomes),
        "errors": sum(status != 200 for status, _ in outcomes),
        "requests_per_s": len(outcomes) / wall_s,
        "latency_ms": {
            "mean": statistics.fmean(times),
            "median": cuts[49],
            "p95": cuts[94],
            "p99": cuts[98],
            "max": times[-1],
        },
        "histogram_ms": histogram,
    }


def told(metrics: dict[str, Any]) -> str:
    """The figures as text, with bars."""
    latency, most = metrics["latency_ms"], max(metrics["histogram_ms"].values())
    lines = [
        f"{metrics['requests']} requests of {metrics['clients']} clients, {metrics['errors']} errors, "
        f"{metrics['requests_per_s']:.1f} a second",
        "  ".join(f"{name} {value:.0f} ms" for name, value in latency.items()),
    ]
    for name, count in metrics["histogram_ms"].items():
        lines.append(f"  {name:>12} ms {count:5d} {'#' * round(40 * count / most)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
