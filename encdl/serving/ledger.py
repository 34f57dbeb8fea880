"""The ledger of a key server, in SQLite: functional keys given, and a log whose lines are chained by hashes.

An entry and its line are one transaction, which is on the disk before the key is answered: write-ahead log, synchronous
FULL. A line's digest is the SHA-256 of the line before and itself, so that no line but the last ones can be changed,
left out or put in unnoticed; whoever notes the last digest elsewhere notices that for all lines before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from encdl.keys.grant import utc_now
from encdl.utils.errors import UsageError

FIRST = "0" * 64
"""The digest before the first line."""
WAIT_S = 10.0
"""For another process that writes."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spent (
    nonce TEXT NOT NULL, reader TEXT NOT NULL, bits INTEGER NOT NULL, noise REAL NOT NULL, PRIMARY KEY (nonce, reader)
);
CREATE TABLE IF NOT EXISTS log (number INTEGER PRIMARY KEY, line TEXT NOT NULL, digest TEXT NOT NULL);
"""
_KEPT = """
CREATE TRIGGER IF NOT EXISTS {table}_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'lines are only added here'); END;
"""


class BudgetError(UsageError):
    """A functional key is not given, because of those that were given before."""


class Ledger:
    """The ledger; may be used by several threads, and its file by several processes.

    Args:
        path: Its file, which is made if there is none.

    Attributes:
        found: What `check` said when it was opened.

    Raises:
        UsageError: The file is of another kind, cannot be written, or lines of its log were changed.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._turn = path, threading.Lock()
        try:
            path.touch(0o600)  # it tells who reads what
            self._base = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=FULL")
            self._base.executescript(_SCHEMA)
            for table in ("spent", "log"):
                for verb in ("UPDATE", "DELETE"):
                    self._base.execute(_KEPT.format(table=table, verb=verb))
            self.found = self.check()
        except (sqlite3.Error, OSError) as error:
            raise UsageError(f"{path}: cannot be used as a ledger ({error}): name another file") from None

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def check(self) -> tuple[int, str]:
        """Go through the chain; how many lines there are, and the digest of the last.

        Raises:
            UsageError: A line was changed, left out or put in.
        """
        count, digest = 0, FIRST
        with self._turn:
            for number, line, stated in self._base.execute("SELECT number, line, digest FROM log ORDER BY number"):
                count, digest = count + 1, _chained(digest, line)
                if number != count or digest != stated:
                    raise UsageError(
                        f"{self.path}: line {count} of its log was changed: find out by whom, and start a new ledger"
                    )
        return count, digest

    def charge(self, nonce: str, reader: str, bits: int, noise: float, budget: int, event: Mapping[str, object]) -> int:
        """Enter a functional key and its line; on the disk when this returns.

        Args:
            nonce: The file's.
            reader: The map's id.
            bits: That it gives away at most.
            noise: Its standard deviation.
            budget: Bits that all keys of the file may give away.
            event: What else the line tells.

        Returns:
            Bits that were charged: 0 for a key that was given before.

        Raises:
            BudgetError: The budget does not suffice, or the file was read with other noise; nothing is entered.
        """
        with self._transaction():
            given = self._base.execute("SELECT reader, bits, noise FROM spent WHERE nonce = ?", (nonce,)).fetchall()
            if other := [each[2] for each in given if each[2] != noise]:
                raise BudgetError(
                    f"functional keys of this file were given with noise of {other[0]:g} levels, and the policy says "
                    f"{noise:g}: two draws would average out"
                )
            known, spent = reader in {each[0] for each in given}, sum(each[1] for each in given)
            left = max(0, budget - spent)
            if not known and bits > left:
                raise BudgetError(
                    f"this reader learns {bits:,} bits of the image, and {left:,} of {budget:,} are left: encrypt the "
                    "image anew, or change the policy"
                )
            charged = 0 if known else bits
            if not known:
                self._base.execute("INSERT INTO spent VALUES (?, ?, ?, ?)", (nonce, reader, bits, noise))
            self._append({**event, "charged": charged})
        return charged

    def note(self, event: Mapping[str, object]) -> None:
        """Add a line to the log; on the disk when this returns."""
        with self._transaction():
            self._append(event)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._turn:
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:  # a full disk, too
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise

    def _append(self, event: Mapping[str, object]) -> None:
        last = self._base.execute("SELECT number, digest FROM log ORDER BY number DESC LIMIT 1").fetchone()
        number, digest = last or (0, FIRST)
        line = json.dumps({"time": utc_now().isoformat(), **event}, sort_keys=True)
        self._base.execute("INSERT INTO log VALUES (?, ?, ?)", (number + 1, line, _chained(digest, line)))


def _chained(digest: str, line: str) -> str:
    return hashlib.sha256(f"{digest}\n{line}".encode()).hexdigest()
