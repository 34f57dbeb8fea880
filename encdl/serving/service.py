"""From a request's JSON to a reader's answers, without any of HTTP: what the server and the MLflow model share.

A record is `{"container": ..., "grant": ...}`: an `.encdl` file in base64, and the line of a grant file that opens it;
of a `KeylessService` it is the container alone. The grant stays in memory; the container, which is ciphertext, goes
through a temporary file.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from PIL import Image

from encdl.files import container, label_masks
from encdl.keys.functional import FunctionalKey
from encdl.keys.key import Grant
from encdl.readers.answers import Answer, Classification, Segmentation
from encdl.readers.functional_files import FunctionalPredictor
from encdl.readers.predictor import Predictor
from encdl.utils.errors import (
    ContainerError,
    EncdlError,
    KeyFileError,
    UsageError,
    WeightsError,
    WrongKeyError,
    without_secrets,
)

CONTAINER, GRANT = FIELDS = ("container", "grant")
MAX_RECORDS = 256
MAX_VALUES = 8 * MAX_RECORDS
"""Brackets and commas of a body; each may cost a hundred times its length once it is parsed."""
PIECE = 1 << 22
"""Characters of a container that are decoded at a time; a multiple of 4."""
PROGRESS_S = 5.0
"""Seconds after which the log says again how much of a volume is read."""
LOG = logging.getLogger("encdl.serving")
STATUS: dict[type[EncdlError], int] = {
    KeyFileError: 400,
    WrongKeyError: 403,
    ContainerError: 422,
    WeightsError: 422,
    UsageError: 422,
}
"""HTTP status of what a record may fail with."""


class RefusedError(EncdlError):
    """A request that is not answered, with the reason in one line.

    Attributes:
        status: The HTTP status, 400 to 499.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(without_secrets(" ".join(message.split())))
        self.status = status


def parse(body: bytes | bytearray) -> list[Mapping[str, Any]]:
    """The records of a request.

    Args:
        body: JSON as MLflow's clients send it: `{"dataframe_records": [RECORD, ...]}`,
            `{"dataframe_split": {"columns": [...], "data": [[...], ...]}}` or `{"inputs": [RECORD, ...]}`. A
            bytearray is cleared, for a volume is large.

    Raises:
        RefusedError: It is something else.
    """
    if sum(map(body.count, (b"[", b"{", b","))) > MAX_VALUES:
        raise RefusedError(f"the body holds too many values: send {MAX_RECORDS} records at a time", 413)
    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        if isinstance(body, bytearray):
            body.clear()
        content = json.loads(text)
        del text
    except (ValueError, RecursionError):
        raise RefusedError('the body is not JSON: send {"dataframe_records": [...]}') from None
    form, given = next(iter(content.items())) if isinstance(content, dict) and len(content) == 1 else ("", None)
    if form == "dataframe_split":
        given = _rows(given)
    elif form not in {"dataframe_records", "inputs"}:
        raise RefusedError("the body must have one key: dataframe_records, dataframe_split or inputs")
    if not isinstance(given, list) or not given:
        raise RefusedError(f"{form} must be a list of one record or more")
    if len(given) > MAX_RECORDS:
        raise RefusedError(f"{len(given)} records are too many: send {MAX_RECORDS} at a time", 413)
    return given


class Service:
    """Answers records with one reader; may be called by several threads at a time.

    Args:
        predictor: The reader.
    """

    fields: ClassVar[tuple[str, ...]] = FIELDS

    def __init__(self, predictor: Predictor | FunctionalPredictor) -> None:
        self.predictor = predictor

    def answer(self, records: Sequence[Any], spend: bool = False) -> list[dict[str, Any]]:
        """Read every record.

        Args:
            records: Of a container and what opens it.
            spend: Take the containers out of the records as they are read, to free memory.

        Returns:
            For each, of a classifier `predicted` (name of a class) and `probability of CLASS` for each class; of a
            segmenter `mask`: a PNG file in base64, 8-bit grey, whose levels are the indices of the classes; for a
            volume `nifti`, a .nii.gz file in base64.

        Raises:
            RefusedError: One of them cannot be read; nothing is answered.
        """
        return [self._one(f"record {number}", record, spend) for number, record in enumerate(records)]

    def _one(self, name: str, record: Any, spend: bool) -> dict[str, Any]:
        _check(name, record, self.fields)
        read = self.reading(name, record)
        with TemporaryDirectory(prefix="encdl-serve-") as folder:
            path = Path(folder, f"request{container.SUFFIX}")
            _write(path, name, record.pop(CONTAINER) if spend else record[CONTAINER])
            try:
                answer = read(path)
            except EncdlError as error:
                status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 422)
                said = str(error).removeprefix(f"{path}: ").replace(str(path), name)
                raise RefusedError(f"{name}: {said}", status) from None
        return self._told(answer)

    def reading(self, name: str, record: Mapping[str, Any]) -> Callable[[Path], Answer | Segmentation | Classification]:
        """The opener of a record's file, whose fields are texts; raises `RefusedError`."""
        predictor, grant = self.predictor, _grant(name, record[GRANT])
        assert isinstance(predictor, Predictor)
        return lambda path: predictor.answer(path, grant, _logged(name))

    def _told(self, answer: Answer | Segmentation | Classification) -> dict[str, Any]:
        if isinstance(answer, Segmentation):
            content = label_masks.nifti_bytes(answer.mask, answer.volume.affine)
            return {"nifti": base64.b64encode(content).decode()}
        if self.predictor.per_pixel:
            stream = io.BytesIO()
            Image.fromarray(answer.best).save(stream, "PNG")
            return {"mask": base64.b64encode(stream.getvalue()).decode()}
        classes = self.predictor.classes
        likely = zip(classes, answer.probabilities.tolist(), strict=True)
        return {
            "predicted": classes[int(answer.best)],
            **{f"probability of {name}": round(value, 6) for name, value in likely},
        }


class KeylessService(Service):
    """Answers records of ciphertext alone, with functional keys from a key server.

    Args:
        predictor: The reader.
        key_of: The functional key of a file, with this header, for the reader with an id.
    """

    fields: ClassVar[tuple[str, ...]] = (CONTAINER,)

    def __init__(self, predictor: FunctionalPredictor, key_of: Callable[[Path, bytes, str], FunctionalKey]) -> None:
        super().__init__(predictor)
        self._keyless, self._key_of = predictor, key_of

    def reading(self, name: str, record: Mapping[str, Any]) -> Callable[[Path], Answer | Segmentation | Classification]:
        """As `Service.reading`."""
        reader = self._keyless.function.id
        return lambda path: self._keyless.read(path, lambda head: self._key_of(path, head, reader), _logged(name))


def _rows(split: Any) -> list[Any]:
    """The records of MLflow's `dataframe_split`."""
    columns, data = (split.get("columns"), split.get("data")) if isinstance(split, dict) else (None, None)
    rows = data if isinstance(data, list) else []
    if not isinstance(columns, list) or not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        raise RefusedError("dataframe_split must have columns, and data with a value for each of them")
    return [dict(zip(map(str, columns), row, strict=True)) for row in rows]


def _logged(name: str) -> Callable[[float], None]:
    """Is told what share more of a record is read, and logs that every few seconds."""
    done, told = 0.0, time.monotonic()

    def progress(share: float) -> None:
        nonlocal done, told
        done += share
        if time.monotonic() - told >= PROGRESS_S:
            LOG.info("%s: %.0f %% read", name, 100 * done)
            told = time.monotonic()

    return progress


def _check(name: str, record: Any, fields: Sequence[str]) -> None:
    """Refuse what is no record; it is untrusted."""
    if not isinstance(record, Mapping) or set(record) != set(fields):
        raise RefusedError(f"{name}: must have the fields {' and '.join(fields)}, and no others", 422)
    if not all(isinstance(record[field], str) for field in fields):
        raise RefusedError(f"{name}: {' and '.join(fields)} must be texts", 422)


def _write(path: Path, name: str, text: str) -> None:
    """Write a container in base64 to a file, in pieces: that of a volume is large."""
    try:
        with path.open("wb") as file:
            for start in range(0, len(text), PIECE):
                part = base64.b64decode(text[start : start + PIECE], validate=True)
                if file.write(part) < PIECE // 4 * 3 and start + PIECE < len(text):
                    raise ValueError("padding before the end")
    except ValueError:  # binascii.Error is one
        raise RefusedError(f"{name}: the container is not base64 (RFC 4648, section 4)", 422) from None


def _grant(name: str, text: str) -> Grant:
    """The grant of a record, which is untrusted."""
    try:
        return Grant.parse(text.encode("utf-8", "replace"), "the grant")
    except KeyFileError as error:
        if text.lstrip().startswith("encdl-key"):
            raise RefusedError(
                f"{name}: the grant is a master key: keep that to yourself, and make a grant with `encdl grant`"
            ) from None
        raise RefusedError(f"{name}: {error}") from None
