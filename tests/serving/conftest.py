"""Keys, readers and files of an owner with a key server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from encdl import api
from encdl.keys import Key
from encdl.keys.signing import SigningKey
from encdl.serving.keyserver import make_app
from tests.mni import mni_slice
from tests.reader_checkpoint import save_reader
from tests.readers.test_functional_files import CLASSES, SIDE, functional_reader
from tests.serving.owner import server
from tests.serving.support import running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys, readers and files, a of study S and b of none."""
    folder = tmp_path_factory.mktemp("owner")
    for name in ("k", "theirs"):
        Key.generate().save(folder / f"{name}.key")
    for name in ("owner", "server", "foreign"):
        signing = SigningKey.generate()
        signing.save(folder / f"{name}.key")
        signing.public.save(folder / f"{name}.pub")
    for seed, name in enumerate(("r", "second", "third")):
        save_reader(
            folder / f"{name}.ckpt", functional_reader(seed=seed), view="Functional", classes=CLASSES, size=[SIDE, SIDE]
        )
    owner = SigningKey.load(folder / "owner.key")
    files = (("a", "k", "S"), ("b", "k", ""), ("foreign", "theirs", "S"), ("volume", "k", "S"))
    for name, key, study in files:
        image = mni_slice(85 + len(study), SIDE, SIDE)[0, 0].numpy()
        image = np.stack([image, image]) if name == "volume" else image
        (folder / f"{name}.encdl").write_bytes(
            api.encrypt(image, folder / f"{key}.key", readable=SIDE, signer=owner, study=study)
        )
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Links to all of it."""
    monkeypatch.chdir(tmp_path)
    for path in made.iterdir():
        Path(path.name).symlink_to(path)
    return tmp_path


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    with running(make_app(server())) as address:
        yield address
