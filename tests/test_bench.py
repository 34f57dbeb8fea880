"""The throughput table: every row is measured, by a program that needs few packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MISSING = ("pydicom", "tifffile", "monai", "nilearn", "mlflow", "albumentations", "cv2", "jsonargparse")
"""What a machine with a GPU need not have for it."""

SMALL = f"""
import importlib.util, sys
sys.modules.update(dict.fromkeys({MISSING!r}))
spec = importlib.util.spec_from_file_location("bench", "experiments/bench.py")
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)
bench.REPEATS["cpu"], bench.SIDE = 1, 24
what, small = bench.slices()
assert [image.shape for image in small] == [(233, 197)] * 4
bench.slices = lambda: (what, [image[80:96, 80:100] for image in small])
bench.TURNS = 1
bench.main()
"""


@pytest.mark.slow
def test_the_bench_runs_with_few_packages(tmp_path: Path) -> None:
    record = tmp_path / "throughput.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SMALL, "-o", str(record), "--beside", str(ROOT)],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads(record.read_text())
    assert content["dataset"] == "drawn slices, and uniform noise of 16 bit"
    files, image = content["metrics"]["files"], content["metrics"]["image_512x512_8bit_cpu"]
    assert list(files) == ["4 PNG, 233x197, 8 bit", "1 NPY, 2x24x24, 16 bit"]
    assert set(image) == {"encrypt_ms", "decrypt_ms", "beside", "beside_to_this"}
    assert set(image["beside"]) == {"encrypt_ms", "decrypt_ms", "commit"}
    assert image["beside_to_this"] == image["beside"]["encrypt_ms"] / image["encrypt_ms"]
    for found in files.values():
        assert {"encdl encrypt", "encdl decrypt", "encdl encrypt, wrap aes", "encdl decrypt, wrap aes"} < set(
            found["mb_per_s"]
        )
        assert {"AES-256-GCM encrypt", "AES-256-GCM decrypt"} < set(found["mb_per_s"])
        assert min(found["mb_per_s"].values()) > 0
        assert min(found["seconds_of_steps"].values()) > 0
        assert min(found["seconds_without_compiled_code"].values()) > 0
        assert 0 < found["share_of_network"] < 1
    assert files["1 NPY, 2x24x24, 16 bit"]["array_mb"] == pytest.approx(2 * 24 * 24 * 2 / 1e6)


def test_an_image_in_memory_is_timed_without_other_packages() -> None:
    script = str(ROOT / "experiments" / "bench_image.py")
    missing = f"import sys, runpy; sys.modules.update(dict.fromkeys({MISSING!r})); "
    missing += f"runpy.run_path({script!r}, run_name='__main__')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", missing], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert set(found) == {"encrypt_ms", "decrypt_ms"}
    assert min(found.values()) > 0
