"""Files in stores: in memory, and in an S3 server of this test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

import encdl
from encdl.cli import main
from encdl.files import images, stores
from encdl.keys.key import Key
from encdl.utils.errors import ContainerError, UsageError

KEY = Key(bytes(range(32)))
VOLUME = np.random.default_rng(0).integers(0, 65536, (150, 128, 128), dtype=np.uint16)


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty folder."""
    if request.param == "memory":
        yield "memory://bucket"
        fsspec.filesystem("memory").store.clear()
        return
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server_of = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer
    server = server_of(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "NO_PROXY": host,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3", skip_instance_cache=True).makedirs("bucket", exist_ok=True)
    yield "s3://bucket"
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


def test_names_that_are_addresses() -> None:
    for text in ("s3://bucket/a/b.encdl", "memory://a"):
        assert stores.address_of(text) == stores.address_of(Path(text)) == text
    assert [stores.address_of(name) for name in ("a.png", "/a/b", "C:/x", "a:b", "")] == [None] * 5


def test_verbs_take_addresses(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    KEY.save("k.key")
    image = np.random.default_rng(1).integers(0, 256, (30, 40), dtype=np.uint8)
    images.write("a.png", image)
    files, name = fsspec.core.url_to_fs(store)
    files.put_file("a.png", f"{name}/a.png")
    encrypt = ["encrypt", f"{store}/a.png", "--key", "k.key", "-o", f"{store}/a.encdl"]
    assert main(encrypt) == 0
    assert main(["inspect", f"{store}/a.encdl"]) == 0
    assert main(["decrypt", f"{store}/a.encdl", "--key", "k.key", "-o", f"{store}/b.png"]) == 0
    assert main(["decrypt", f"{store}/a.encdl", "--key", "k.key", "-o", "c.png"]) == 0
    assert files.cat_file(f"{name}/b.png") == Path("c.png").read_bytes() == Path("a.png").read_bytes()
    capfd.readouterr()
    for words, told in (
        (encrypt, f"{store}/a.encdl: exists already"),
        (["decrypt", f"{store}/none.encdl", "--key", "k.key", "-o", "d.png"], "there is nothing at this address"),
        (["decrypt", f"{store}/a.png", "--key", "k.key", "-o", "d.png"], "is not an EncDL file"),
        (["encrypt", f"{store}/a.encdl", "--key", "k.key", "-o", f"{store}/n.encdl"], f"{store}/a.encdl"),
        (["encrypt", "a.png", "--key", "k.key", "-o", "nosuch://x/n.encdl"], "nosuch://x/n.encdl: cannot be used"),
    ):
        assert main(words) == 2
        err = capfd.readouterr().err
        assert told in err, err
        assert err.count("\n") == 1
    assert not files.exists(f"{name}/n.encdl")


def test_one_slice_is_fetched_by_ranges(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files, name = fsspec.core.url_to_fs(store)
    data = encdl.encrypt(VOLUME, KEY)
    files.pipe_file(f"{name}/v.encdl", data)
    read: list[int] = []
    if store.startswith("s3"):
        kind = type(files.open(f"{name}/v.encdl"))
        fetch = kind._fetch_range

        def counted(self: object, start: int, end: int) -> bytes:
            read.append(end - start)
            return bytes(fetch(self, start, end))

        monkeypatch.setattr(kind, "_fetch_range", counted)
    for number in (0, 70, 149):
        np.testing.assert_array_equal(encdl.decrypt_slice(f"{store}/v.encdl", KEY, number), VOLUME[number])
    assert sum(read) < len(data)  # each alone less than a third
    with pytest.raises(UsageError, match="has 150 slices, 0 to 149"):
        encdl.decrypt_slice(f"{store}/v.encdl", KEY, 150)
    damaged = bytearray(data)
    damaged[-1000] ^= 1
    files.pipe_file(f"{name}/v.encdl", bytes(damaged))
    assert np.array_equal(encdl.decrypt_slice(f"{store}/v.encdl", KEY, 3), VOLUME[3])
    with pytest.raises(ContainerError, match="slice 150 of 150 was changed"):
        encdl.decrypt_slice(f"{store}/v.encdl", KEY, 149)
