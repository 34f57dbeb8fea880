from __future__ import annotations

import copy
import os
import pickle
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encdl.keys import Grant, ImageKeys, Key, load_opener, secret_files
from encdl.utils.errors import EncdlError, KeyFileError, OutputExistsError, UsageError

SECRET = bytes(range(32))
NONCE = bytes(range(100, 116))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "k.key"


def reveals(text: str | bytes, secret: bytes = SECRET) -> bool:
    data = text.encode() if isinstance(text, str) else text
    hexes = secret.hex().encode()
    line = secret_files.encode_field(secret).encode()
    return secret in data or hexes[:16] in data.lower() or line[:12] in data or repr(secret).encode()[2:20] in data


def test_save_and_load(path: Path) -> None:
    key = Key(SECRET)
    key.save(path)
    assert Key.load(path) == key
    assert load_opener(path) == key
    text = path.read_text()
    assert text.startswith("encdl-key-1:AAECAwQF")
    assert text.count("\n") == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Key.is_private(path)


@given(st.binary(min_size=32, max_size=32))
def test_any_key_survives_its_file(tmp_path_factory: pytest.TempPathFactory, secret: bytes) -> None:
    file = tmp_path_factory.mktemp("keys") / "k.key"
    Key(secret).save(file)
    assert Key.load(file) == Key(secret)


def test_generated_keys_differ() -> None:
    keys = [Key.generate() for _ in range(4)]
    assert len({key.id for key in keys}) == 4
    assert keys[0] != keys[1]
    assert keys[0] != "a key"
    assert Key(SECRET) == Key(SECRET)
    assert hash(Key(SECRET)) == hash(Key(SECRET))


def test_a_key_needs_32_bytes() -> None:
    for length in (0, 31, 33):
        with pytest.raises(UsageError, match="32 bytes"):
            Key(SECRET[:length] if length < 33 else SECRET + b"!")


def test_sharing_is_noticed(path: Path) -> None:
    Key(SECRET).save(path)
    for mode in (0o640, 0o604, 0o660, 0o601):
        path.chmod(mode)
        assert not Key.is_private(path)
        assert Key.load(path) == Key(SECRET)
    with pytest.raises(KeyFileError, match="cannot look at"):
        Key.is_private(path.with_name("none"))


def test_the_file_is_private_under_any_umask(path: Path) -> None:
    for index, mask in enumerate((0o000, 0o077, 0o777)):
        before = os.umask(mask)
        try:
            Key(SECRET).save(path.with_name(str(index)))
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.with_name(str(index)).stat().st_mode) == 0o600


def test_an_existing_file_is_kept(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(OutputExistsError, match=r"k\.key is there already.*--force"):
        Key(SECRET).save(path)
    assert path.read_text() == "precious"
    path.chmod(0o666)
    Key(SECRET).save(path, force=True)
    assert Key.load(path) == Key(SECRET)
    assert Key.is_private(path)
    assert [p.name for p in path.parent.iterdir()] == ["k.key"]


def test_force_makes_a_new_file_too(path: Path) -> None:
    Key(SECRET).save(path, force=True)
    assert Key.load(path) == Key(SECRET)


def test_a_symbolic_link_is_not_written_through(path: Path) -> None:
    other = path.with_name("other")
    path.symlink_to(other)
    with pytest.raises(OutputExistsError):
        Key(SECRET).save(path)
    other.write_text("precious")
    Key(SECRET).save(path, force=True)
    assert other.read_text() == "precious"
    assert not path.is_symlink()


@pytest.mark.parametrize("force", [False, True])
def test_a_failed_write_leaves_nothing(path: Path, force: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if force:
        path.write_text("precious")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFileError, match=r"cannot write .*k\.key: No space left on device"):
        Key(SECRET).save(path, force=force)
    assert [p.read_text() for p in path.parent.iterdir()] == ["precious"] * force


@pytest.mark.parametrize(
    ("name", "message"), [("no/folder/k.key", "No such file"), ("nul\0byte", "null"), ("x" * 300, "too long")]
)
def test_unwritable_places(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(KeyFileError, match=f"cannot write .*{message}"):
        Key(SECRET).save(tmp_path / name)


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError):
        Key(SECRET).save(tmp_path)
    with pytest.raises(KeyFileError, match="it is a folder"):
        Key(SECRET).save(tmp_path, force=True)
    assert list(tmp_path.iterdir()) == []


def good_line() -> bytes:
    head = secret_files.KEY_PREFIX
    check = secret_files._check(head, SECRET)
    return f"{head}:{secret_files.encode_field(SECRET + check)}".encode()


LINE = good_line()
CHANGED = LINE[:-10] + (b"A" if LINE[-10:-9] != b"A" else b"B") + LINE[-9:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \r\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (LINE[:-1], "cut or altered"),
        (LINE[:-9], "cut or altered"),
        (LINE + b"A", "cut or altered"),
        (LINE + b"AAA=", "cut or altered"),
        (CHANGED, "cut or altered"),
        (b"encdl-key-1", "cut or altered"),
        (b"encdl-key-1:", "cut or altered"),
        (b"encdl-key-1:" + b"!" * 48, "cut or altered"),
        (LINE.replace(b":", b":x:"), "cut or altered"),
        (LINE + b"\n" + LINE, "not one line of plain text"),
        (LINE.decode().encode("utf-16"), "not one line of plain text"),
        (bytes(range(256)), "not one line of plain text"),
        (SECRET, "not one line of plain text"),
        (SECRET.hex().encode(), "not an EncDL key file"),
        (b"hello", "not an EncDL key file"),
        (b"encdl-key-2:" + LINE[12:], "newer EncDL"),
        (b"encdl-grant-3:a:b", "not an EncDL key file"),
        (b"encdl-grant-1:a:b", "is a grant, and the master key is asked for"),
        (b"\x89ENCDL\r\n" + bytes(9000), "encrypted file, not a key"),
        (b"\0" * 5000, "too large"),
        (b"A" * 10_000_000, "too large"),
    ],
)
def test_bad_files(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match=message) as caught:
        Key.load(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert not reveals("".join(traceback.format_exception(caught.value)))


def test_more_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"no key file .*none.*encdl keygen"):
        Key.load(tmp_path / "none")
    with pytest.raises(KeyFileError, match="is a folder"):
        Key.load(tmp_path)
    with pytest.raises(KeyFileError, match="cannot read"):
        Key.load(tmp_path / "nul\0byte")
    with pytest.raises(KeyFileError, match="too large"):
        Key.load("/dev/zero")


@pytest.mark.parametrize("dress", [b"%s", b"%s\r\n", b"  %s \n\n", b"\xef\xbb\xbf%s\n"])
def test_editors_may_add_white_space(path: Path, dress: bytes) -> None:
    path.write_bytes(dress % LINE)
    assert Key.load(path) == Key(SECRET)


@given(st.binary(max_size=120))
def test_any_bytes_fail_politely(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("keys") / "k.key"
    for data in (content, b"encdl-key-1:" + content, b"encdl-grant-1:" + content):
        file.write_bytes(data)
        with pytest.raises(EncdlError):
            load_opener(file)


SECRET_HOLDERS: list[Callable[[], Key | Grant | ImageKeys]] = [
    lambda: Key(SECRET),
    lambda: Grant("study", "a study", None, "0" * 16, SECRET),
    lambda: ImageKeys(SECRET, SECRET, SECRET, SECRET, SECRET, SECRET, NONCE),
]


@pytest.mark.parametrize("make", SECRET_HOLDERS)
def test_secrets_do_not_show(make: Callable[[], Key | Grant | ImageKeys]) -> None:
    holder = make()
    assert not any(reveals(text) for text in (repr(holder), str(holder), f"{holder!s} {holder!r}"))
    assert not hasattr(holder, "__dict__")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="holds a secret"):
            pickle.dumps(holder, protocol)
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds a secret"):
            duplicate(holder)


def test_key_repr_is_its_id() -> None:
    key = Key(SECRET)
    assert repr(key) == f"Key(id={key.id})"
    assert len(key.id) == 16
    assert int(key.id, 16) >= 0
    assert key.key_id == key.id


def test_image_keys_are_frozen_and_compared_whole() -> None:
    keys = Key(SECRET).image_keys(NONCE)
    assert keys == Key(SECRET).image_keys(NONCE)
    assert hash(keys) == hash(Key(SECRET).image_keys(NONCE))
    assert keys != "keys"
    with pytest.raises(AttributeError):
        keys.planes = SECRET
    values = {name: getattr(keys, name) for name in keys.__slots__}
    for field in ("planes", "permutation", "diffusion", "authentication", "wrap", "reading"):
        assert ImageKeys(**values | {field: SECRET}) != keys


def test_every_secret_of_the_hierarchy_differs() -> None:
    secrets = set()
    for key in (Key(SECRET), Key(SECRET[::-1])):
        for study in ("", "a", "b"):
            secrets.add(key.nonce_secret(study))
            for nonce in (NONCE, NONCE[::-1], bytes(16)):
                keys = key.image_keys(nonce, study)
                assert keys.nonce == nonce
                secrets |= {getattr(keys, name) for name in keys.__slots__ if name != "nonce"}
    assert len(secrets) == 2 * 3 * (1 + 3 * 6)
    assert all(len(secret) == 32 for secret in secrets)


@pytest.mark.parametrize("nonce", [b"", bytes(15), bytes(17)])
def test_bad_nonces(nonce: bytes) -> None:
    with pytest.raises(UsageError, match="a nonce has 16 bytes"):
        Key(SECRET).image_keys(nonce)


def test_study_names() -> None:
    key = Key(SECRET)
    composed, decomposed = "h\u00e9art", "he\u0301art"
    assert key.image_keys(NONCE, composed) == key.image_keys(NONCE, decomposed)
    for bad in ("line\nbreak", "nul\0", "\udc80", "x" * 257):
        with pytest.raises(UsageError, match="study's name") as caught:
            key.image_keys(NONCE, bad)
        assert "\n" not in str(caught.value)


def test_import_stays_light() -> None:
    code = "import encdl.keys, sys; print(sorted({'torch', 'scipy', 'lightning', 'monai'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"
