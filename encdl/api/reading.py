"""Networks that read ciphertext, with a key or without; and the evaluation of ciphers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdl.api.openers import AnyPath
from encdl.files import container, file_names
from encdl.files.codecs import codec_of, load_cipher
from encdl.files.folders import gather
from encdl.keys.functional import FunctionalKey
from encdl.keys.key_source import AnyKey, opened
from encdl.keys.signing import PublicKey, SigningKey
from encdl.utils import atomic
from encdl.utils.devices import usable_device
from encdl.utils.errors import UsageError

if TYPE_CHECKING:
    from encdl.audit.evaluation import Result
    from encdl.files.fitted import Fitted
    from encdl.files.levels import Levels
    from encdl.readers.answers import Answer, Classification, Segmentation
    from encdl.readers.functional_files import FunctionalPredictor
    from encdl.readers.predictor import Predictor


def load_reader(
    checkpoint: AnyPath,
    *,
    weights: str | None = None,
    device: str = "auto",
    any_size: bool = False,
    levels: Levels | None = None,
) -> Predictor:
    """A network that reads ciphertext: `read(path, key)` gives its `Answer` about a file.

    Args:
        checkpoint: what training a classifier or segmenter wrote.
        weights: name or file of the cipher weights that the files were made with, if others.
        device: where to compute.
        any_size: let a classifier read images of another size than it was trained on, less reliably.
        levels: how stored integers become levels, such as `Levels(window="lung")`; by default as it was trained.

    Raises:
        WeightsError: a file is missing, damaged or of another kind, or the two do not go together.
    """
    from encdl.readers.predictor import Predictor  # noqa: PLC0415 - MONAI takes seconds

    return Predictor.load(
        checkpoint, weights_of_files=weights, device=usable_device(device), any_size=any_size, levels=levels
    )


def predict(source: AnyPath, key: AnyKey, reader: Predictor | AnyPath) -> Answer:
    """A network's answer about a .encdl file, without decrypting it.

    Args:
        source: the container.
        key: as `decrypt`.
        reader: of `load_reader`, or the path of a checkpoint.

    Raises:
        ContainerError, WrongKeyError, WeightsError: as `decrypt`.
        UsageError: the image is one that this reader cannot read.
    """
    loaded = load_reader(reader) if isinstance(reader, str | os.PathLike) else reader
    return loaded.read(source, opened(key))


def segment(source: AnyPath, key: AnyKey, reader: Predictor | AnyPath) -> Iterator[tuple[Path, Segmentation]]:
    """The masks that a segmenter makes of every scan in a folder of .encdl files, each on the scan's own grid.

    DICOM files of one series are one scan, whatever their names; so is a NIfTI file, and an image by itself.

    Args:
        source: the folder, or one file.
        key: as `decrypt`.
        reader: of `load_reader`, or the path of a checkpoint.

    Yields:
        A name that tells nothing sealed, and the mask, with the scan and what is wrong with it.

    Raises:
        ContainerError, WrongKeyError, WeightsError, UsageError: as `predict`.
    """
    from encdl.files import scan_files, series_tags  # noqa: PLC0415

    loaded = load_reader(reader) if isinstance(reader, str | os.PathLike) else reader
    opener = opened(key)
    open_file = partial(loaded.opened, opener=opener)
    sources = gather([Path(source)], file_names.is_encrypted, f"{container.SUFFIX} file")
    for unit in scan_files.find_units(sources, open_file, series_tags.name_of(opener)):
        yield unit.name, loaded.segment(unit.load(open_file))


def readable_for(checkpoint: AnyPath, window: tuple[float, float] | str | None = None) -> Fitted:
    """How to make the reading layer that a reader takes: the setting `readable` of `encrypt`.

    Args:
        checkpoint: of a reader that was trained on view Functional.
        window: in the place of the reader's own levels.

    Raises:
        WeightsError: the checkpoint is missing, damaged or of another kind.
        UsageError: there is no such window.
    """
    from encdl import readers  # noqa: PLC0415
    from encdl.readers.functional_files import readable_for  # noqa: PLC0415

    return readable_for(readers.load(Path(checkpoint)), window)


def place_mask(mask: AnyPath, source: AnyPath, key: AnyKey, target: AnyPath, *, force: bool = False) -> None:
    """Put a mask that was read by a functional key, on the grid of a reading layer, on the grid of its scan.

    Args:
        mask: what `encdl predict` wrote without a key, .nii.gz.
        source: the container of the scan.
        key: as `decrypt`.
        target: the file to write, NIfTI.
        force: replace it if it exists.

    Raises:
        ImageFileError: the mask cannot be read.
        ContainerError, WrongKeyError: as `decrypt`.
        UsageError: the mask is of another form than the file's reading layer, or that is none of a volume.
        OutputExistsError: the target exists and `force` is not set.
    """
    from encdl.files import fitted, formats, label_masks  # noqa: PLC0415

    atomic.different_files(Path(target), Path(mask), Path(source))
    atomic.check_output(Path(target), force)
    voxels = fitted.volume_of(formats.load(Path(mask))).array
    with container.opened(Path(source), opened(key)) as reader:
        volume = fitted.volume_of(codec_of(reader.header, None, "cpu", reader.where).decrypt(reader))
        try:
            placed = fitted.put_back(voxels, volume, reader.header.reading)
        except UsageError as error:
            raise UsageError(f"{mask}: {error}") from None
    atomic.write_bytes(Path(target), label_masks.nifti_bytes(placed, volume.affine), force=force)


def grant_functional(
    source: AnyPath,
    key: AnyKey,
    reader: AnyPath,
    *,
    noise: float = 0.0,
    signer: SigningKey | None = None,
    expires: datetime | None = None,
) -> FunctionalKey:
    """A functional key: a host reads one file with one network, and learns no more of it (docs/functional-keys.md).

    Args:
        source: a container with a reading layer.
        key: as `decrypt`.
        reader: checkpoint of a reader that was trained on view Functional.
        noise: standard deviation of what is added to the levels of the layer's pixels.
        signer: signs it.
        expires: when EncDL begins to refuse it. Advisory.

    Raises:
        ContainerError, WrongKeyError, WeightsError: as `decrypt`.
        UsageError: the file has no reading layer that this reader reads.
    """
    from encdl import readers  # noqa: PLC0415
    from encdl.readers import functional_files  # noqa: PLC0415

    return functional_files.grant_functional(
        source, opened(key), readers.load(Path(reader)), noise=noise, signer=signer, expires=expires
    )


def load_functional_reader(
    checkpoint: AnyPath, *, device: str = "auto", server: PublicKey | None = None, owner: PublicKey | None = None
) -> FunctionalPredictor:
    """A network that reads files with functional keys: `read(path, functional_key)` gives its `Answer`.

    Args:
        checkpoint: of a reader that was trained on view Functional.
        device: where to compute.
        server: refuse functional keys that were not signed with this key.
        owner: refuse files that were not signed with this key.

    Raises:
        WeightsError: the checkpoint is missing, damaged or of another kind.
    """
    from encdl.readers.functional_files import FunctionalPredictor  # noqa: PLC0415

    return FunctionalPredictor.load(checkpoint, device=usable_device(device), server=server, owner=owner)


def predict_functional(
    source: AnyPath, functional_key: FunctionalKey | AnyPath, reader: FunctionalPredictor | AnyPath
) -> Answer | Classification | Segmentation:
    """A network's answer about a .encdl file, without any key; of several slices a `Classification` or `Segmentation`.

    Args:
        source: the container.
        functional_key: of this file, for this reader; or the path of its file.
        reader: of `load_functional_reader`, or the path of a checkpoint.

    Raises:
        ContainerError, WrongKeyError, WeightsError, UsageError: as `FunctionalPredictor.read`.
        KeyFileError: there is no such functional key, or it is damaged.
    """
    loaded = load_functional_reader(reader) if isinstance(reader, str | os.PathLike) else reader
    key = functional_key if isinstance(functional_key, FunctionalKey) else FunctionalKey.load(functional_key)
    return loaded.read(source, key)


def evaluate(
    config: AnyPath | None = None, *, progress: Callable[[str], None] = lambda step: None, **settings: Any
) -> Result:
    """Measure ciphers: repair of damage beside classical repair, exactness, statistics.

    Args:
        config: YAML file of settings.
        progress: is told what comes next.
        settings: fields of `encdl.audit.evaluation.Settings`; they come before those of the file.

    Raises:
        DataError, UsageError, WeightsError: as `encdl.audit.evaluation.evaluate`.
    """
    from encdl.audit import evaluation  # noqa: PLC0415

    chosen = evaluation.read(None if config is None else Path(config), settings)
    device = usable_device(chosen.device)
    return evaluation.evaluate(chosen, lambda name: load_cipher(name, device), device, progress)
