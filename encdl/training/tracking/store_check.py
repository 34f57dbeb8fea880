"""MLflow's stores: made whole by whoever comes first, and asked whether they answer before MLflow waits for them."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sqlite3
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote, unquote

from encdl.utils.errors import UsageError
from encdl.utils.file_lock import locked

ANSWER_S = 10.0
"""A server that is there answers within this time, and whoever writes to a data base is done."""
_DATA_BASES = ("postgresql", "mysql", "mssql")
_SQLITE = "sqlite:///"
_QUESTION = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"


def sqlite_uri(file: Path) -> str:
    """The address of a data base in a file, whatever letters its path has."""
    return _SQLITE + str(file.absolute()).replace("%", "%25").replace("?", "%3F")


def check_store(uri: str) -> None:
    """Find out whether a store can be used; a data base in a file is made if it is not there.

    Raises:
        UsageError: it does not answer, fails, or cannot be written.
    """
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
    elif uri.startswith(_SQLITE):
        name = unquote(uri.removeprefix(_SQLITE).partition("?")[0])
        if name in ("", ":memory:"):
            raise UsageError(f"{uri}: names no file, in which runs would be kept: mend MLFLOW_TRACKING_URI")
        _check_file(Path(name))
    elif uri.startswith(_DATA_BASES):
        _check_data_base(uri)


def _check_server(uri: str) -> None:
    context = ssl.create_default_context()
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true":
        context = ssl._create_unverified_context()  # noqa: S323 - as the user asks MLflow to
    try:
        with urllib.request.urlopen(uri.rstrip("/") + _QUESTION, timeout=ANSWER_S, context=context):  # noqa: S310
            return
    except urllib.error.HTTPError as error:
        if error.code < 500:  # it is there, and MLflow has the credentials that it asks for
            return
        reason = f"answers {error.code} {error.reason}"
    except (OSError, HTTPException, ValueError) as error:
        reason = f"does not answer ({getattr(error, 'reason', None) or error})"
    raise UsageError(
        f"the MLflow server {uri} {' '.join(reason.split())}: start it, mend MLFLOW_TRACKING_URI, or set "
        "trainer.logger to false"
    )


def _check_data_base(uri: str) -> None:
    import sqlalchemy  # noqa: PLC0415

    try:
        address = sqlalchemy.make_url(uri)
        shown = address.render_as_string(hide_password=True)
        sqlalchemy.create_engine(address)
        if address.host and address.port:
            socket.create_connection((address.host, address.port), ANSWER_S).close()
    except ImportError as error:
        raise UsageError(f"{shown}: MLflow needs the package {error.name} for it: pip install it") from None
    except (OSError, ValueError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise UsageError(
            f"MLflow's data base cannot be reached ({' '.join(str(error).split())[:200]}): start it, mend "
            "MLFLOW_TRACKING_URI, or set trainer.logger to false"
        ) from None


def _check_file(file: Path) -> None:
    """Make the data base under another name if there is none, one process at a time, and try to write to it."""
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with locked(file.with_name(f".{file.name}.lock")):
                _make(file)
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=ANSWER_S)
        ) as base:
            base.execute("BEGIN IMMEDIATE")
            base.rollback()
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{file}: MLflow's data base cannot be made or written there ({reason}): end what uses it, check the "
            "permissions, give another folder with --trainer.default_root_dir, or set trainer.logger to false"
        ) from None


def _make(file: Path) -> None:
    """Let MLflow make its tables; a file that has the name is whole, whoever was killed meanwhile."""
    part = file.with_name(f".{file.name}.part")
    for left in (part, part.with_name(f"{part.name}-journal")):
        left.unlink(missing_ok=True)
    if not file.exists():
        part.touch()  # or says why it cannot, where MLflow would try again for minutes
        from mlflow import MlflowClient  # noqa: PLC0415

        told = logging.getLogger("mlflow.store.db.utils")
        try:
            told.addFilter(_nothing)
            MlflowClient(sqlite_uri(part)).search_experiments(max_results=1)
        except Exception as error:  # of SQL, into which MLflow writes the path as it is, or of its letters
            raise UsageError(
                f"{ascii(str(file))[1:-1]}: MLflow makes no data base under such a name ({type(error).__name__}): work "
                "in a folder without quotes and colons in its name, or set trainer.logger to false"
            ) from error
        finally:
            told.removeFilter(_nothing)
        os.replace(part, file)


def _nothing(record: logging.LogRecord) -> bool:
    """Of pages of SQL nothing is told."""
    return False
