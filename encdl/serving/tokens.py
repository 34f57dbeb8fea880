"""Bearer tokens: the client holds one, the key server's policy its SHA-256."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from pathlib import Path

from encdl.keys import secret_files
from encdl.utils.errors import KeyFileError

TOKEN_BYTES = 32
HEXADECIMAL = re.compile(r"[0-9a-f]{64}")


def new_token(path: Path, force: bool = False) -> str:
    """Write a new bearer token to a file that only its owner can read; its digest, for the policy."""
    token = secrets.token_hex(TOKEN_BYTES)
    secret_files.write(path, f"{token}\n".encode(), force=force)
    return digest_of(token)


def read_token(path: Path) -> str:
    """The bearer token in a file; raises `KeyFileError` if there is none."""
    token = secret_files.read(path).strip()
    if not HEXADECIMAL.fullmatch(token):
        raise KeyFileError(f"{path}: is no token: make one with `encdl keyserver --new-token FILE`")
    return token


def digest_of(token: str) -> str:
    """SHA-256 of a token, which the policy names it by."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_of(token: str, digest: str) -> bool:
    """Whether a token has this digest."""
    return hmac.compare_digest(digest_of(token), digest)
