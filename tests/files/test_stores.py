"""Files in stores: in memory, and in an S3 server of this test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

import encdl
from encdl.cli import main
from encdl.data.npz import NpzImages
from encdl.data.registry import open_data
from encdl.files import images, stores
from encdl.keys.key import Key
from encdl.utils.errors import ContainerError, UsageError
from tests.reader_checkpoint import resnet, save_reader, smooth, tiny_reader, unet

KEY = Key(bytes(range(32)))
VOLUME = np.random.default_rng(0).integers(0, 65536, (150, 128, 128), dtype=np.uint16)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty bucket of a server of this test's own."""
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


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an empty folder."""
    if request.param == "s3":
        yield request.getfixturevalue("s3")
        return
    yield "memory://bucket"
    fsspec.filesystem("memory").store.clear()


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


def names(store: str) -> list[str]:
    files, name = fsspec.core.url_to_fs(store)
    files.invalidate_cache()
    return sorted(found.removeprefix(f"{name}/") for found in files.find(name))


def encdl_said(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    capfd.readouterr()
    try:
        code = main([*words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, capfd.readouterr().err.splitlines()


def test_folders_of_stores(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    KEY.save("k.key")
    files, name = fsspec.core.url_to_fs(store)
    for number in range(3):
        images.write(f"{number}.png", np.random.default_rng(number).integers(0, 256, (30, 40), dtype=np.uint8))
        files.put_file(f"{number}.png", f"{name}/in/p{number}/{number}.png")
    encrypt = ["encrypt", f"{store}/in", "--key", "k.key", "-o", f"{store}/sealed", "--jobs", "2"]
    sealed = [f"p{number}/{number}.png.encdl" for number in range(3)]
    for told in ("3 files encrypted", "3 finished before"):
        code, [*_, last] = encdl_said(capfd, *encrypt)
        assert (code, told in last, names(f"{store}/sealed")) == (0, True, sealed)
    assert main(["inspect", f"{store}/sealed"]) == 0
    assert "3 files: 30x40 uint8" in capfd.readouterr().out
    for target in (f"{store}/out", "out"):  # to the store, and down from it
        decrypt = ["decrypt", f"{store}/sealed", "--key", "k.key", "-o", target]
        for told in ("3 files decrypted", "3 finished before"):
            code, [*_, last] = encdl_said(capfd, *decrypt)
            assert (code, told in last) == (0, True)
    for number in range(3):
        assert files.cat_file(f"{name}/out/p{number}/{number}.png") == Path(f"{number}.png").read_bytes()
        assert Path(f"out/p{number}/{number}.png").read_bytes() == Path(f"{number}.png").read_bytes()
    # What is there and something else is kept; one that fails does not stop the others.
    files.pipe_file(f"{name}/out/p0/0.png", b"mine")
    files.pipe_file(f"{name}/sealed/p1/1.png.encdl", b"\0" * 999)
    code, said = encdl_said(capfd, "decrypt", f"{store}/sealed", "--key", "k.key", "-o", f"{store}/out")
    assert (code, files.cat_file(f"{name}/out/p0/0.png")) == (1, b"mine")
    assert any(f"{store}/out/p0/0.png: " in line and "--force replaces it" in line for line in said), said
    assert not any("/tmp" in line for line in said), said


@pytest.mark.parametrize("name", ["../up.png", "a//b.png", "-f.png", "a b\x1b[31m.png", "ü/%2e%2e/x.png", "s3:/x.png"])
def test_odd_names_stay_in_the_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    KEY.save("k.key")
    images.write("a.png", np.zeros((9, 9), np.uint8))
    files = fsspec.filesystem("memory")
    files.store.clear()
    for each in (name, "plain.png"):
        key = f"/b/in/{each}"
        with files.open("/b/in/x", "wb") as stream:
            stream.write(Path("a.png").read_bytes())
        files.store[key] = files.store.pop("/b/in/x")
    sound = "/../" not in f"/{name}" and "//" not in name
    code, said = encdl_said(capfd, "encrypt", "memory://b/in", "--key", "k.key", "-o", "memory://b/sealed")
    assert code == (0 if sound else 1)
    assert ("names that no file can have" in "".join(said)) != sound
    assert "\x1b" not in "".join(said)
    made = [key for key in files.store if key.endswith(".encdl")]
    assert made == [key for key in made if key.startswith("/b/sealed/")]
    assert len(made) == 1 + sound
    files.store.clear()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://none/in", "there is nothing at this address"),
        ("gs://bucket/in", "needs another package"),
        ("nosuch://bucket/in", "cannot be used (ValueError)"),
    ],
)
@pytest.mark.parametrize("where", ["from", "to"])
def test_stores_that_cannot_be_used(
    where: str, address: str, said: str, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """One line and exit code 2, before anything is computed."""
    monkeypatch.chdir(tmp_path)
    KEY.save("k.key")
    Path("in").mkdir()
    images.write("in/a.png", np.zeros((9, 9), np.uint8))
    source, target = (address, "out") if where == "from" else ("in", address)
    code, lines = encdl_said(capfd, "encrypt", source, "--key", "k.key", "-o", target)
    assert (code, len(lines)) == (2, 1)
    assert said in lines[0]


def test_training_data_is_fetched_once(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files, name = fsspec.core.url_to_fs(store)
    fetched: list[str] = []
    place = os.replace

    def replaced(source: Path, target: Path) -> None:
        fetched.extend([str(target)] * ("cache" in str(target)))
        place(source, target)

    monkeypatch.setattr(os, "replace", replaced)
    for kind in ("dark", "light"):
        for number in range(4):
            images.write(tmp_path / "a.png", np.full((9, 9), number, np.uint8), force=True)
            files.put_file(str(tmp_path / "a.png"), f"{name}/set/{kind}/{number}.png")
    np.savez(tmp_path / "s.npz", images=np.zeros((6, 8, 8), np.uint8), split=np.arange(6) % 3, labels=np.arange(6) % 2)
    files.put_file(str(tmp_path / "s.npz"), f"{name}/s.npz")
    for count in (9, 0):
        folder = open_data(f"classes:{store}/set")
        assert folder.spec.classes == ("dark", "light")
        assert sum(len(folder.samples(split)) for split in ("train", "val", "test")) == 8
        assert len(open_data(f"{store}/s.npz").samples("train")) == len(NpzImages("s.npz", store).samples("val")) == 2
        assert len(fetched) == count
        fetched.clear()
        stores._cached.cache_clear()  # as in another process
        files.invalidate_cache()
    files.put_file(str(tmp_path / "a.png"), f"{name}/set/dark/9.png")
    files.rm_file(f"{name}/set/dark/0.png")
    files.invalidate_cache()
    names = [path.name for path in (stores.cached(f"{store}/set") / "dark").iterdir()]
    assert (sorted(names), len(fetched)) == (["1.png", "2.png", "3.png", "9.png"], 1)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "cache/encdl/stores").iterdir())
    with pytest.raises(UsageError, match=f"{store}/none: there is nothing at this address"):
        open_data(f"classes:{store}/none").samples("train")


def test_verbs_that_keep_to_this_machine_say_so(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("k", "n"):
        (KEY if name == "k" else Key.generate()).save(f"{name}.key")
    images.write("a.png", np.zeros((9, 9), np.uint8))
    sealed, key = f"{store}/kept.encdl", ["--key", "k.key"]
    assert main(["encrypt", "a.png", *key, "-o", sealed]) == 0
    assert main(["encrypt", "a.png", *key, "-o", "b.encdl"]) == 0
    for words, told in (
        (["rekey", sealed, *key, "--new-key", "n.key"], f"{sealed} is an address"),
        (["rekey", "b.encdl", *key, "--new-key", "n.key", "-o", sealed], f"{sealed} is an address"),
        (["recipients", "remove", sealed, *key, "--id", "0" * 16], f"{sealed} is an address"),
        (["keygen", f"{store}/x.key"], f"{store}/x.key is an address"),
        (["decrypt", sealed, *key, "-o", sealed, "--force"], "the output is the same file as the input"),
    ):
        code, said = encdl_said(capfd, *words)
        assert (code, len(said), told in said[0]) == (2, 1, True), said
    assert main(["recipients", "list", sealed]) == 0
    assert main(["inspect", sealed, *key]) == 0


def test_predict_stores_its_table_and_no_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    KEY.save("k.key")
    files = fsspec.filesystem("memory")
    files.store.clear()
    images.write("a.png", smooth(0))
    assert main(["encrypt", "a.png", "--key", "k.key", "-o", "memory://b/a.encdl"]) == 0
    save_reader("classifier.ckpt", tiny_reader(resnet))
    save_reader("segmenter.ckpt", tiny_reader(unet))
    predict = ["predict", "memory://b/a.encdl", "--key", "k.key", "-o", "memory://b/t.csv", "--reader"]
    code, said = encdl_said(capfd, *predict, "classifier.ckpt")
    assert (code, said) == (0, [])
    assert b"memory://b/a.encdl" in files.cat_file("/b/t.csv").replace(b"memory:/b", b"memory://b")
    for words, told in (
        ([*predict, "classifier.ckpt"], "memory://b/t.csv: exists already"),
        ([*predict, "segmenter.ckpt"], "memory://b/t.csv: masks go to a folder on this machine"),
    ):
        code, said = encdl_said(capfd, *words)
        assert (code, len(said), told in said[0]) == (2, 1, True), said
    files.store.clear()
