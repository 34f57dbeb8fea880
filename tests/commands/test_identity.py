"""`--identity`: whose file it is; and what `encdl inspect` shows of it without a key."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from encdl.files import container, formats, images
from encdl.files.container import ContainerReader, ContainerWriter, PublicReader
from encdl.files.container.metadata import padded_length
from encdl.keys.key import Key, Opener
from encdl.utils.errors import ContainerError
from tests.commands.conftest import Run, failed, noise
from tests.files.formats.test_names import files


def test_files_are_what_their_owner_calls_them(run: Run, agile: Path) -> None:
    weights = ["--key", "k.key", "--weights", agile]
    assert run("encrypt", "scan.png", *weights, "--identity", "Müller, ward 3", "-o", "s.encdl")[0] == 0
    assert "ward 3" not in run("inspect", "s.encdl")[1]
    code, out, _ = run("decrypt", "s.encdl", *weights, "--identity", "Müller, ward 3", "-o", "a.png")
    assert (code, "called 'Müller, ward 3' by its owner" in out) == (0, True)
    failed(run("decrypt", "s.encdl", *weights, "--identity", "Meier", "-o", "b.png"), "does not call it 'Meier'")
    failed(run("encrypt", "scan.png", *weights, "--identity", "a\nb", "-o", "n.encdl"), "without control characters")
    Path("in").mkdir()
    for name in "ab":
        images.write(f"in/{name}.png", noise((20, 30)))
    for _ in range(2):
        assert run("encrypt", "in", *weights, "--identity", "x/{name}", "-o", "enc")[0] == 0
    assert run("decrypt", "enc", *weights, "--identity", "x/{name}", "-o", "dec")[0] == 0
    Path("enc/a.png.encdl").replace("enc/b.png.encdl")
    failed(run("decrypt", "enc/b.png.encdl", *weights, "--identity", "x/b.png", "-o", "c.png"), "does not call it")
    assert run("keygen", "n.key")[0] == 0
    assert run("rekey", "s.encdl", *weights, "--new-key", "n.key")[0] == 0
    with container.opened("s.encdl", Key.load("n.key")) as reader:
        assert reader.metadata.identity == "Müller, ward 3"  # type: ignore[union-attr]


def forged(data: bytes, opener: Opener, identity: str, other: Callable[[bytes], bytes] = bytes) -> bytes:
    """What the holder of a file's secret can make of it: other metadata and pixels, all tags right."""
    reader, stream = ContainerReader(io.BytesIO(data), opener), io.BytesIO()
    metadata = replace(reader.metadata, identity=identity)  # type: ignore[type-var]
    writer = ContainerWriter(stream, reader.header, metadata, reader.image_keys)  # type: ignore[arg-type]
    for chunk in reader.chunks():
        writer.chunk(other(chunk.body))
    writer.close()
    return stream.getvalue()


def test_the_holder_of_a_grant_makes_no_file_that_passes_for_the_owners(run: Run, agile: Path) -> None:
    key = Key.load("k.key")
    options = ["--key", "k.key", "--weights", agile, "--identity", "Doe", "--study", "S", "-o", "s.encdl"]
    assert run("encrypt", "scan.png", *options)[0] == 0
    data = Path("s.encdl").read_bytes()
    with open("s.encdl", "rb") as stream:
        grant = key.grant_file(PublicReader(stream).header.nonce_bytes, "S")
    for identity in ("Roe", ""):
        forgery = forged(data, grant, identity)
        ContainerReader(io.BytesIO(forgery), grant).verify()  # who has no more than it cannot tell
        for opener in (key, key.grant_study("S")):
            with pytest.raises(ContainerError, match="was not made with the key, but by one who can open this file"):
                ContainerReader(io.BytesIO(forgery), opener)
    ContainerReader(io.BytesIO(forged(data, grant, "Doe")), key).verify()
    # The owner's mark is of the pixels too.
    Path("f.encdl").write_bytes(forged(data, grant, "Doe", lambda body: bytes(len(body))))
    failed(
        run("decrypt", "f.encdl", "--key", "k.key", "--weights", agile, "-o", "f.png"), "does not decrypt to what was"
    )
    assert not Path("f.png").exists()


def test_inspect_shows_nothing_of_patient_format_or_length(run: Run, agile: Path, tmp_path: Path) -> None:
    endings = {"nifti-gz": ".nii.gz", "nifti": ".nii", "dicom": ".dcm", "tiff": ".tif", "jpeg": ".jpg"}
    options = ["--key", "k.key", "--weights", agile, "--identity", "Doe^Jane", "-o", "s.encdl", "--force"]
    alike: dict[str, set[str]] = {}
    for name, content in files(tmp_path).items():
        kind = name.split()[0]
        ending = endings.get(kind, f".{kind}")
        source = Path(f"original{ending}")
        source.write_bytes(content)
        assert run("encrypt", source, *options)[0] == 0
        text = run("inspect", "s.encdl", "--json")[1]
        shown, data, told = text + run("inspect", "s.encdl")[1], Path("s.encdl").read_bytes(), json.loads(text)
        for secret in ("Doe", "Jane", "original", kind, ending):
            assert secret not in shown.replace("s.encdl", ""), (name, secret)
        for secret in (b"Doe^Jane", b"original", ending.encode() + b'"'):
            assert secret not in data, (name, secret)
        [sealed] = (section["length"] for section in told["sections"] if section["name"] == "metadata")
        assert sealed - 16 == padded_length(sealed - 16)  # one of few
        assert told["shape"] == list(formats.load(source).shape)
        # Arrays alike are shown alike, whatever they came as, but for the padded length of what is sealed.
        number, shape = told["series"].pop("number"), (told["shape"], told["dtype"], told["layout"])
        lengths = {part["name"]: part["length"] for part in told["sections"]} | {"metadata": 0, "parity": 0}
        rest = {key: value for key, value in told.items() if key not in ("nonce", "file_bytes", "sections", "series")}
        alike.setdefault(str(shape), set()).add(json.dumps([number, list(lengths.items()), rest], sort_keys=True))
    assert {shape: len(shown) for shape, shown in alike.items()} == dict.fromkeys(alike, 1)
