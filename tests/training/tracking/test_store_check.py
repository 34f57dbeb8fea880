"""Stores that are down, slow, locked, read-only or not there yet."""

from __future__ import annotations

import http.server
import multiprocessing
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from encdl.training.run_folder import hold
from encdl.training.tracking import store_check
from encdl.training.tracking.store_check import check_store, sqlite_uri
from encdl.utils.errors import UsageError
from encdl.utils.file_lock import locked, try_lock


def server(code: int, pause_s: float = 0) -> str:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(pause_s)
            self.send_response(code)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{made.server_port}"


@pytest.mark.parametrize(
    ("code", "pause_s", "told"),
    [(200, 0, ""), (404, 0, ""), (401, 0, ""), (500, 0, "answers 500"), (200, 5, "timed out")],
)
def test_a_server_is_asked(monkeypatch: pytest.MonkeyPatch, code: int, pause_s: float, told: str) -> None:
    monkeypatch.setattr(store_check, "ANSWER_S", 1)
    uri = server(code, pause_s)
    if told:
        with pytest.raises(UsageError, match=told):
            check_store(uri)
    else:
        check_store(uri)


def test_a_server_that_is_down_is_told() -> None:
    with pytest.raises(UsageError, match="does not answer"):
        check_store("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("postgresql://me:secret@127.0.0.1:9/runs", "needs the package psycopg"),
        ("mysql://127.0.0.1/x", "needs the package MySQLdb"),
        ("postgresql+none://x", "cannot be reached"),
        ("mysql://[::1", "cannot be reached"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///", "names no file"),
    ],
)
def test_data_bases_that_cannot_be_used_are_told(uri: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        check_store(uri)
    assert "secret" not in str(caught.value)


def test_a_data_base_that_is_down_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlalchemy.create_engine", lambda *_: None)  # as if its driver were here
    with pytest.raises(UsageError, match=r"cannot be reached .*refused"):
        check_store("postgresql://127.0.0.1:9/runs")


def test_a_data_base_is_made_once_whatever_its_folder_is_called(tmp_path: Path) -> None:
    file = tmp_path / "a%20b?c#d ä" / "mlflow.db"
    check_store(sqlite_uri(file))
    check_store(sqlite_uri(file))
    with sqlite3.connect(file) as base:
        assert base.execute("select count(*) from experiments").fetchone() == (1,)
    assert {path.name for path in file.parent.iterdir()} == {"mlflow.db", ".mlflow.db.lock"}


def test_what_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_check, "ANSWER_S", 0.2)
    file = tmp_path / "mlflow.db"
    base = sqlite3.connect(file, isolation_level=None)
    base.execute("create table a (b)")
    base.execute("begin immediate")
    with pytest.raises(UsageError, match="database is locked"):
        check_store(sqlite_uri(file))
    base.close()
    file.write_bytes(b"no data base" * 99)
    with pytest.raises(UsageError, match="not a database"):
        check_store(sqlite_uri(file))
    with pytest.raises(UsageError, match="Not a directory"):
        check_store(sqlite_uri(file / "below" / "mlflow.db"))


def test_one_process_holds_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    ready, done = multiprocessing.get_context("fork").Event(), multiprocessing.get_context("fork").Event()

    def other() -> None:
        with locked(path):
            ready.set()
            done.wait(30)

    process = multiprocessing.get_context("fork").Process(target=other)
    process.start()
    assert ready.wait(30)
    assert try_lock(path) is None
    with pytest.raises(UsageError, match="held this lock"), locked(path, 0.2):
        pass
    (tmp_path / ".lock").symlink_to(path)
    with pytest.raises(UsageError, match="another training keeps its place there"):
        hold(tmp_path)
    done.set()
    process.join()
    hold(tmp_path).close()
