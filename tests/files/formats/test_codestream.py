from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from encdl.files.formats.codestream import rows_and_columns
from tests.files.formats.support import noise

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.mark.parametrize(
    "name",
    ["MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "JPEG2000", "SC_rgb_jpeg_dcmtk", "JPEGLSNearLossless_16"],
)
def test_sizes_of_frames(name: str) -> None:
    dataset = pydicom.dcmread(SAMPLES / f"{name}.dcm")
    frame = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    assert rows_and_columns(frame) == (dataset.Rows, dataset.Columns)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"\xff\xc0 no header"}, {"dpi": (99, 99)}])
def test_sizes_of_jpeg_files(tmp_path: Path, options: dict[str, object]) -> None:
    Image.fromarray(noise((9, 17, 3))).save(tmp_path / "a.jpg", **options)
    assert rows_and_columns((tmp_path / "a.jpg").read_bytes()) == (9, 17)


def test_whatever_else_has_no_size() -> None:
    data = (SAMPLES / "JPEG2000.dcm").read_bytes()
    start = data.index(b"\xff\x4f\xff\x51")
    random = np.random.default_rng(0)
    for length in range(40):
        for frame in (data[start : start + min(length, 23)], b"\xff\xd8" + random.bytes(length), random.bytes(length)):
            size = rows_and_columns(frame)
            assert size is None or frame.startswith(b"\xff\xd8")
    assert rows_and_columns(b"\xff\xd8\xff\xe0\0\0" * 9) is None
