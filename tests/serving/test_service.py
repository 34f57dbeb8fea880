from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from encdl.keys.key import Grant, Key
from encdl.readers.predictor import Predictor
from encdl.serving.service import MAX_RECORDS, RefusedError, Service, parse
from tests.reader_checkpoint import CLASSES, SIZE, resnet, unet
from tests.serving.support import Record, noise, record, service


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return service(tmp_path_factory.mktemp("reader"), resnet)


@pytest.fixture(scope="module")
def key() -> Key:
    return Key.generate()


@pytest.fixture
def good(tmp_path: Path, key: Key) -> Record:
    return record(tmp_path, key, noise())


def expected(predictor: Predictor, one: Record, folder: Path) -> Any:
    file = folder / "expected.encdl"
    file.write_bytes(base64.b64decode(one["container"]))
    return predictor.read(file, Grant.parse(one["grant"].encode()))


def test_a_classifier_tells_what_predict_tells(classifier: Service, good: Record, tmp_path: Path, key: Key) -> None:
    other = record(tmp_path, key, noise(1), study="S1")
    deep = record(tmp_path, key, (noise(2).astype(np.int16) - 40) * 9)
    told = classifier.answer([good, other, deep])
    assert told[0] != told[1]
    for one, answer in zip((good, other, deep), told, strict=True):
        known = expected(classifier.predictor, one, tmp_path)
        assert answer["predicted"] == CLASSES[resnet][int(known.best)]
        given = [answer[f"probability of {name}"] for name in CLASSES[resnet]]
        assert given == pytest.approx(known.probabilities.tolist(), abs=1e-5)
    json.dumps(told)


def test_a_segmenter_gives_a_mask(tmp_path: Path, good: Record) -> None:
    segmenter = service(tmp_path, unet)
    [answer] = segmenter.answer([good])
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["mask"]))))
    np.testing.assert_array_equal(mask, expected(segmenter.predictor, good, tmp_path).best)
    assert mask.shape == SIZE
    assert len(np.unique(mask)) > 1
    [answer] = segmenter.answer([record(tmp_path, Key.generate(), np.stack([noise(seed) for seed in range(5)]))])
    volume = nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(answer["nifti"])))
    assert volume.shape == (*SIZE[::-1], 5)


def test_a_large_body_is_decoded_in_pieces_and_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """So that a volume is in memory once; padding before the end is no base64, wherever a piece ends."""
    monkeypatch.setattr("encdl.serving.service.PIECE", 4)
    monkeypatch.setattr("encdl.serving.service.PROGRESS_S", 0.0)
    segmenter = service(tmp_path, unet)
    good = record(tmp_path, Key.generate(), np.stack([noise(seed) for seed in range(4)]))
    body = bytearray(json.dumps({"inputs": [good]}).encode())
    records = parse(body)
    assert (body, records) == (b"", [good])
    with caplog.at_level("INFO"):
        assert segmenter.answer(records, spend=True) == segmenter.answer([good])
    assert records == [{"grant": good["grant"]}]
    assert [each.getMessage() for each in caplog.records[:4]] == [f"record 0: {n} % read" for n in (25, 50, 75, 100)]
    for text in (
        "QQ==" + good["container"],
        good["container"] + "Q",
        good["container"][:5] + "\n" + good["container"][5:],
    ):
        with pytest.raises(RefusedError, match="is not base64"):
            segmenter.answer([good | {"container": text}])


def content(good: Record, change: Callable[[bytes], bytes]) -> Record:
    return good | {"container": base64.b64encode(change(base64.b64decode(good["container"]))).decode()}


def master(folder: Path, key: Key) -> str:
    key.save(folder / "k.key", force=True)
    return (folder / "k.key").read_text()


BAD: dict[str, tuple[int, str, Callable[[Record, Path, Key], Any]]] = {
    "grant of another file": (
        403, "this grant opens the file with nonce",
        lambda good, at, key: good | {"grant": record(at, key, noise(2))["grant"]},
    ),
    "grant of another owner": (
        403, "was encrypted with key",
        lambda good, at, _: good | {"grant": record(at, Key.generate(), noise())["grant"]},
    ),
    "master key": (400, "is a master key: keep that", lambda good, at, key: good | {"grant": master(at, key)}),
    "mistyped": (400, "the grant is cut or altered", lambda good, *_: good | {"grant": good["grant"][:-3] + "AAA"}),
    "no grant": (400, "the grant is not an EncDL key file", lambda good, *_: good | {"grant": "please"}),
    "foreign letters": (400, "the grant is not a key file", lambda good, *_: good | {"grant": "\ud800 grüße"}),
    "empty grant": (400, "the grant is empty", lambda good, *_: good | {"grant": ""}),
    "a changed byte": (
        422, "was changed after it was written",
        lambda good, *_: content(good, lambda old: old[:-40] + bytes([old[-40] ^ 1]) + old[-39:]),
    ),
    "a cut": (422, "is cut", lambda good, *_: content(good, lambda b: b[:-9])),
    "more behind": (422, "after its end", lambda good, *_: content(good, lambda b: b + b"more")),
    "nothing": (422, "is empty", lambda good, *_: content(good, lambda _: b"")),
    "an image": (422, "is not an EncDL file", lambda good, *_: content(good, lambda _: b"\x89PNG" + bytes(104))),
    "another size": (422, "is 8x9 pixels, the reader was trained", lambda _, *of: record(*of, noise(0, (8, 9)))),
    "colour": (422, "has 3 channels, the reader takes 1 channel", lambda _, *of: record(*of, noise(0, (*SIZE, 3)))),
    "not base64": (422, "is not base64", lambda good, *_: good | {"container": "!!"}),
    "a number": (422, "must be texts", lambda good, *_: good | {"container": 5}),
    "a field more": (422, "must have the fields container and grant", lambda good, *_: good | {"study": "S"}),
    "a list": (422, "must have the fields container and grant", lambda *_: [1]),
}  # fmt: skip


@pytest.mark.parametrize(("status", "said", "spoil"), BAD.values(), ids=BAD)
def test_bad_records_are_refused_with_a_reason(
    classifier: Service,
    good: Record,
    key: Key,
    tmp_path: Path,
    status: int,
    said: str,
    spoil: Callable[[Record, Path, Key], Any],
) -> None:
    bad = spoil(good, tmp_path, key)
    with pytest.raises(RefusedError) as caught:
        classifier.answer([good, bad])
    told = str(caught.value)
    assert caught.value.status == status
    assert told.startswith("record 1: ")
    assert said in told
    assert "\n" not in told
    assert "/tmp" not in told
    grant = good["grant"].rpartition(":")[2]
    assert grant not in told


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "is not JSON"),
        (b"{nope", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 2_000, "is not JSON"),
        (b"[]", "must have one key"),
        (b"{}", "must have one key"),
        (b'{"records": []}', "must have one key"),
        (b'{"inputs": [{}], "params": {}}', "must have one key"),
        (b'{"inputs": []}', "one record or more"),
        (b'{"inputs": {"container": []}}', "one record or more"),
        (b'{"dataframe_split": {"columns": ["container"]}}', "one record or more"),
        (b'{"dataframe_split": {"columns": ["container"], "data": [[1, 2]]}}', "a value for each"),
        (b'{"dataframe_split": 5}', "must have columns"),
    ],
)
def test_bodies_that_are_no_records(body: bytes, said: str) -> None:
    with pytest.raises(RefusedError, match=said) as caught:
        parse(body)
    assert caught.value.status == 400


def test_too_many_records() -> None:
    with pytest.raises(RefusedError, match="are too many") as caught:
        parse(json.dumps({"inputs": [{}] * (MAX_RECORDS + 1)}).encode())
    assert caught.value.status == 413


def test_the_three_forms_say_the_same() -> None:
    rows = [{"container": "a", "grant": "b"}, {"container": "c", "grant": "d"}]
    split = {"columns": ["container", "grant"], "data": [["a", "b"], ["c", "d"]]}
    for body in ({"inputs": rows}, {"dataframe_records": rows}, {"dataframe_split": split}):
        assert parse(json.dumps(body).encode()) == rows
