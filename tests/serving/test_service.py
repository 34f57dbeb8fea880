from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

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


def test_a_classifier_tells_what_predict_tells(
    classifier: Service, good: Record, tmp_path: Path, key: Key
) -> None:
    other = record(tmp_path, key, noise(1), study="S1")
    told = classifier.answer([good, other])
    assert told[0] != told[1]
    for one, answer in zip((good, other), told, strict=True):
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


def spoilt(good: Record, change: str, folder: Path, key: Key) -> Any:
    content = bytearray(base64.b64decode(good["container"]))
    match change:
        case "grant of another file":
            return good | {"grant": record(folder, key, noise(2))["grant"]}
        case "grant of another owner":
            return good | {"grant": record(folder, Key.generate(), noise())["grant"]}
        case "master key":
            key.save(folder / "k.key", force=True)
            return good | {"grant": (folder / "k.key").read_text()}
        case "mistyped grant":
            return good | {"grant": good["grant"][:-3] + "AAA"}
        case "no grant at all":
            return good | {"grant": "please"}
        case "foreign letters":
            return good | {"grant": "\ud800 grüße"}
        case "empty grant":
            return good | {"grant": ""}
        case "a changed byte":
            content[-40] ^= 1
        case "a cut":
            content = content[:-9]
        case "something behind":
            content += b"more"
        case "nothing":
            content.clear()
        case "an image":
            content = bytearray(b"\x89PNG\r\n\x1a\n" + bytes(100))
        case "another size":
            return record(folder, key, noise(0, (8, 9)))
        case "16 bit":
            return record(folder, key, noise().astype(np.uint16))
        case "colour":
            return record(folder, key, noise(0, (*SIZE, 3)))
        case "not base64":
            return good | {"container": "!!"}
        case "a number":
            return good | {"container": 5}
        case "a field more":
            return good | {"study": "S"}
        case "a list":
            return [1]
    return good | {"container": base64.b64encode(content).decode()}


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ("grant of another file", 403, "this grant opens the file with nonce"),
        ("grant of another owner", 403, "was encrypted with key"),
        ("master key", 400, "is a master key: keep that to yourself"),
        ("mistyped grant", 400, "the grant is cut or altered"),
        ("no grant at all", 400, "the grant is not an EncDL key file"),
        ("foreign letters", 400, "the grant is not a key file"),
        ("empty grant", 400, "the grant is empty"),
        ("a changed byte", 422, "was changed after it was written"),
        ("a cut", 422, "is cut"),
        ("something behind", 422, "after its end"),
        ("nothing", 422, "is empty"),
        ("an image", 422, "is not an EncDL file"),
        ("another size", 422, "is 8x9 pixels, the reader was trained on 21x30"),
        ("16 bit", 422, "holds uint16 levels"),
        ("colour", 422, "has 3 channels, the reader takes 1 channel"),
        ("not base64", 422, "is not base64"),
        ("a number", 422, "must be texts"),
        ("a field more", 422, "must have the fields container and grant"),
        ("a list", 422, "must have the fields container and grant"),
    ],
)
def test_bad_records_are_refused_with_a_reason(
    classifier: Service, good: Record, key: Key, tmp_path: Path, change: str, status: int, said: str
) -> None:
    bad = spoilt(good, change, tmp_path, key)
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
        (b"[" * 100_000, "is not JSON"),
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
