from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from encdl import __version__
from encdl.cli import main
from encdl.keys.key import Key
from encdl.serving.service import Service
from tests.reader_checkpoint import resnet
from tests.serving.support import Record, noise, reader_file, record, running, service

LIMIT = 100_000


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return service(tmp_path_factory.mktemp("reader"), resnet)


@pytest.fixture(scope="module")
def address(reader: Service) -> Iterator[str]:
    with running(reader, LIMIT) as address:
        yield address


@pytest.fixture
def good(tmp_path: Path) -> Record:
    return record(tmp_path, Key.generate(), noise())


def post(address: str, content: Any, **more: Any) -> requests.Response:
    return requests.post(f"{address}/invocations", json=content, timeout=60, **more)


def test_answers_are_those_of_the_service(address: str, reader: Service, good: Record) -> None:
    response = post(address, {"dataframe_records": [good, good]})
    assert response.status_code == 200
    assert response.json() == {"predictions": reader.answer([good, good])}


def test_it_says_that_it_is_there(address: str) -> None:
    for path in ("ping", "health"):
        assert requests.get(f"{address}/{path}", timeout=60).status_code == 200
    assert requests.get(f"{address}/version", timeout=60).text == __version__
    assert requests.get(f"{address}/docs", timeout=60).status_code == 404
    assert requests.get(f"{address}/invocations", timeout=60).status_code == 405


def refused(response: requests.Response, status: int) -> str:
    assert response.status_code == status, response.text
    content = response.json()
    assert set(content) == {"error"}
    assert "\n" not in content["error"]
    return str(content["error"])


def test_refusals_have_a_status_and_one_line(address: str, good: Record, tmp_path: Path) -> None:
    other = record(tmp_path, Key.generate(), noise())["grant"]
    assert "record 0: " in refused(post(address, {"inputs": [good | {"grant": other}]}), 403)
    small = record(tmp_path, Key.generate(), noise(0, (9, 9)))
    assert "9x9 pixels" in refused(post(address, {"inputs": [small]}), 422)
    assert "not JSON" in refused(
        requests.post(f"{address}/invocations", b"{", headers={"Content-Type": "application/json"}, timeout=60), 400
    )
    assert "content type" in refused(requests.post(f"{address}/invocations", b"{}", timeout=60), 415)


def test_a_body_that_is_announced_as_too_long_is_not_read(address: str) -> None:
    """The answer comes before a byte of the body is sent."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(
            f"POST /invocations HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {LIMIT + 1}\r\n\r\n".encode()
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_who_sends_slowly_what_is_too_long_gets_the_answer(address: str) -> None:
    """A connection that is closed before all is sent would be reset."""
    host, port = address.removeprefix("http://").split(":")
    head = f"POST /invocations HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(f"{head}Content-Length: {5 * LIMIT}\r\n\r\n".encode())
        for _ in range(5):
            client.sendall(b" " * LIMIT)
            time.sleep(0.1)
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"longer than 100,000 bytes" in answer


def test_a_body_of_unknown_length_is_cut_off(address: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(LIMIT // 1000 + 1):
            yield b" " * 1000

    headers = {"Content-Type": "application/json"}
    told = refused(requests.post(f"{address}/invocations", endless(), headers=headers, timeout=60), 413)
    assert "longer than 100,000 bytes" in told


def test_a_bug_tells_the_client_nothing_and_the_log_no_content(
    address: str, good: Record, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Service, records: Any, spend: bool) -> Any:
        raise RuntimeError(f"a bug with {records}")

    monkeypatch.setattr(Service, "answer", broken)
    with caplog.at_level(logging.DEBUG):
        assert "failed" in refused(post(address, {"inputs": [good]}), 500)
    assert "RuntimeError at tests.serving.test_app:" in caplog.text
    assert good["grant"][-40:] not in caplog.text
    assert good["container"][:60] not in caplog.text


def test_nothing_of_a_request_is_logged(address: str, good: Record, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        post(address, {"inputs": [good]})
        post(address, {"inputs": [good | {"grant": good["grant"][:-1]}]})
        requests.get(f"{address}/ping?grant={good['grant']}", timeout=60)
    ours = [each.getMessage() for each in caplog.records if each.name == "encdl.serving"]
    assert [line.split()[0] for line in ours] == ["200", "400"]
    server = "".join(each.getMessage() for each in caplog.records if not each.name.startswith("urllib3"))
    assert good["grant"][-40:] not in server


def test_four_clients_at_a_time(address: str, reader: Service, tmp_path: Path) -> None:
    records = [record(tmp_path, Key.generate(), noise(seed)) for seed in range(4)]
    known = reader.answer(records)
    found: dict[int, list[Any]] = {number: [] for number in range(4)}

    def client(number: int) -> None:
        for _ in range(3):
            found[number].append(post(address, {"inputs": [records[number]]}).json())

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [{"predictions": [known[number]]}] * 3 for number in range(4)}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--port", "70000"), "--port 70000: must be from 0 to 65535"),
        (("--max-mb", "0"), "--max-mb 0.0: must be above 0"),
        (("--at-once", "0"), "--at-once 0: must be at least 1"),
        (("--host", "no such host"), "cannot listen at no such host port 8000"),
        (("--port", "0", "--reader", "gone.ckpt"), "gone.ckpt: no such checkpoint"),
        (("--port", "0", "--reader", "models:/gone/1"), "no runs are recorded there"),
    ],
)
def test_wrong_settings(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["serve", "--reader", str(reader_file(tmp_path, resnet)), *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--reader", "r.ckpt", "--port", port]) == 2
    assert f"cannot listen at 127.0.0.1 port {port}" in capsys.readouterr().err
