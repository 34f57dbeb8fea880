"""The claims of a grant, and the mark by which its issuer knows it again."""

from __future__ import annotations

import hmac
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast

from encdl.keys import derivation, secret_files
from encdl.utils import canonical_json
from encdl.utils.errors import UsageError

Scope = Literal["study", "file"]

MARK_BYTES: Final = 16

_FIELDS = {"key_id", "nonce", "scope", "study"}
_NEWER_FIELDS = _FIELDS | {"expires", "mark"}


@dataclass(frozen=True)
class Terms:
    """The claims of a grant: public, and covered by the mark of whoever issued it.

    Attributes:
        scope: what it opens, a "study" or one "file".
        study: the study that it opens, or that its file belongs to ("" for none).
        nonce: the nonce of the file that it opens; None for a whole study.
        key_id: the id of the master key that it comes from, 16 hexadecimal characters.
        expires: when EncDL's tools begin to refuse it, in UTC and whole seconds; None for never.
    """

    scope: Scope
    study: str
    nonce: bytes | None
    key_id: str
    expires: datetime | None = None

    @property
    def end(self) -> str:
        """`expires` as it is written, "" for never."""
        return "" if self.expires is None else _written(self.expires)

    def fields(self) -> dict[str, str | None]:
        """As they stand in a grant file."""
        return {
            "expires": self.end or None,
            "key_id": self.key_id,
            "nonce": None if self.nonce is None else self.nonce.hex(),
            "scope": self.scope,
            "study": self.study,
        }

    def mark(self, issuer: bytes) -> bytes:
        """16 bytes of HMAC-SHA256 under a key that only who could issue the grant can derive.

        Args:
            issuer: the secret above the grant's own: for a study the master key, for a file its study's.
        """
        key = derivation.hkdf(issuer, b"encdl grant mark")
        return hmac.digest(key, canonical_json.encoded(self.fields()), "sha256")[:MARK_BYTES]


def in_utc(time: datetime) -> datetime:
    """A time in UTC and whole seconds.

    Raises:
        UsageError: it has no time zone, or lies outside the years 1 to 9999 in UTC.
    """
    if time.tzinfo is None:
        raise UsageError("a grant's end needs a time zone: give a datetime with one, for example datetime.UTC")
    try:
        return time.astimezone(UTC).replace(microsecond=0)
    except OverflowError:
        raise UsageError(f"a grant cannot end on {time:%Y-%m-%d}: give a date between year 1 and 9999") from None


def parse(fields: list[str]) -> tuple[Terms, bytes]:
    """Terms and mark of a grant file, strictly checked; ValueError or UsageError if it is not one."""
    if len(fields) != 2:
        raise ValueError("a grant file has one header")
    values = json.loads(secret_files.decode_field(fields[1]).decode())
    newer = fields[0] == secret_files.GRANT_PREFIXES[1]
    if not isinstance(values, dict) or set(values) != (_NEWER_FIELDS if newer else _FIELDS):
        raise ValueError("unknown or missing fields")
    scope, study, nonce, key_id = (values[field] for field in ("scope", "study", "nonce", "key_id"))
    if not (isinstance(scope, str) and isinstance(study, str) and _is_hex(key_id, 16)):
        raise ValueError("a field has another type")
    if scope not in {"study", "file"} or not (nonce is None or _is_hex(nonce, 2 * derivation.NONCE_BYTES)):
        raise ValueError("a field is out of its range")
    mark = values.get("mark", "")
    if newer and not _is_hex(mark, 2 * MARK_BYTES):
        raise ValueError("the mark is none")
    raw = None if nonce is None else bytes.fromhex(nonce)
    return Terms(cast(Scope, scope), study, raw, key_id, _time(values.get("expires"))), bytes.fromhex(mark)


def _written(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def _time(value: Any) -> datetime | None:
    """A time in a grant file, in its one form; ValueError or TypeError if it is not one."""
    if value is None:
        return None
    time = datetime.fromisoformat(value)
    if time.tzinfo is None or _written(time) != value or not value.endswith("Z"):
        raise ValueError("not a time in UTC")
    return time


def _is_hex(value: object, length: int) -> bool:
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{length}}}", value) is not None
