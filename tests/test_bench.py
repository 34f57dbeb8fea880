"""The bench: every figure is measured, by a program that needs few packages, and one part's end is not the others'."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
MISSING = ("pydicom", "tifffile", "monai", "nilearn", "mlflow", "albumentations", "jsonargparse", "tenseal")
"""What a machine with a GPU need not have for it."""

SMALL = f"""
import sys
sys.modules.update(dict.fromkeys({MISSING!r}))
sys.path.insert(0, "experiments")
import bench, bench_files
what, small = bench_files.slices()
assert [image.shape for image in small] == [(233, 197)] * 4
bench_files.slices = lambda: (what, [image[80:96, 80:100] for image in small])
bench_files.REPEATS["cpu"], bench_files.SIDE = 1, 24
bench.ROUNDS["cpu"], bench.BATCHES["cpu"], bench.PIXELS["cpu"], bench.SIDES = 2, (1, 2), 2**18, (16, 32)
bench.READ["cpu"], bench.TRAIN["cpu"], bench.LIBRARY_BYTES = ((32,), (1, 2)), (2, 64, 1), 2**16
def broken(device):
    yield {{"kept": 1}}
    raise ValueError("on purpose")
bench.PARTS = (broken, *bench.PARTS)
sys.exit(bench.main())
"""


@pytest.mark.slow
def test_the_bench_runs_with_few_packages(tmp_path: Path) -> None:
    record = tmp_path / "bench-cpu.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SMALL, "-o", str(record)],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=280,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr[-3000:]
    content = json.loads(record.read_text())
    found: dict[str, Any] = content["metrics"]
    assert content["dataset"] == "uniform noise in memory; files: drawn slices, and uniform noise of 16 bit"
    assert found["failed"] == {"broken": "ValueError: on purpose"}
    assert found["kept"] == 1
    rates = found["bytes_per_s_by_images_of_256px"]
    assert found["encrypt_256_images_per_s"] == max(each["encrypt"] for each in rates.values()) / 65536
    assert set(found["bytes_per_s_by_side"]) == {"16", "32"}
    assert set(found["bytes_per_s_by_planes"]) == {"1", "2", "4", "8"}
    assert min(found["bytes_per_s_of_cryptography"].values()) > 0
    assert found["network"] != "ResNet"
    assert set(found["read_over_plain"]) == {"32px_1", "32px_2"}
    assert found["train_step_over_plain"] == found["training"]["ratios"]["ciphertext_to_plain"]
    assert found["decryption_training"]["step_ms"] > 0
    assert found["homomorphic"] == "TenSEAL was not installed"
    assert found["memory"]["process_peak_bytes"] > 2**26
    assert list(found["files"]) == ["4 PNG, 233x197, 8 bit", "1 NPY, 2x24x24, 16 bit"]
    for each in found["files"].values():
        assert {"encdl encrypt", "encdl decrypt, wrap aes", "AES-256-GCM decrypt"} < set(each["mb_per_s"])
        assert min(each["mb_per_s"].values()) > 0
        assert min(each["seconds_of_steps"].values()) > 0
        assert min(each["seconds_without_compiled_code"].values()) > 0
    volume = found["files"]["1 NPY, 2x24x24, 16 bit"]
    assert found["file_over_aes_gcm"] == volume["aes_encrypt_to_encdl_encrypt"]
    assert volume["array_mb"] == pytest.approx(2 * 24 * 24 * 2 / 1e6)
