"""Images of what the program does to slices of the embedded brain, drawn with the shipped weights and public keys."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from encdl.utils.errors import UsageError

SLICES = (110, 116)
"""Axial slices of the test split that are shown."""

NONCE = bytes(range(16))


def of_weights(name: str) -> dict[str, Any]:
    """The sources of an illustration: the weights by name, and a digest of their file."""
    from encdl.ciphers.names import SHIPPED  # noqa: PLC0415
    from encdl.ciphers.weights import __file__ as package  # noqa: PLC0415

    if name not in SHIPPED:
        raise UsageError(f"{name!r} are no shipped weights: give one of {', '.join(SHIPPED)}")
    file = Path(package).parent / SHIPPED[name]
    return {"weights": name, "digest": hashlib.sha256(file.read_bytes()).hexdigest(), "slices": SLICES}


def _images() -> Any:
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    from encdl.data.embedded import axial_slice, volume  # noqa: PLC0415

    voxels = volume()
    return torch.from_numpy(np.stack([axial_slice(voxels, index) for index in SLICES]))


def _planes(images: Any, secret: int) -> Any:
    """Key planes of each image, under a public key and nonces that count."""
    from encdl.ciphers.nn.plane_tensors import plane_tensor  # noqa: PLC0415
    from encdl.keys.key import Key  # noqa: PLC0415
    from encdl.keys.planes import PlaneSpec  # noqa: PLC0415

    key = Key(bytes([secret]) * 32)
    subkeys = [key.image_keys(bytes([number, *NONCE[1:]])).planes for number in range(len(images))]
    return plane_tensor(subkeys, PlaneSpec(), images.shape[1:])


def draw_cipher(data: Any) -> bytes:
    """Slices under a cipher: ciphertext, wrong key, damage and repair."""
    import torch  # noqa: PLC0415

    from encdl.ciphers.weights import load  # noqa: PLC0415
    from encdl.training.panels import SHOWN_DAMAGES, cipher_columns, panel_png  # noqa: PLC0415

    cipher = load(data["weights"]).cipher
    images = _images()
    with torch.inference_mode():
        columns = cipher_columns(
            cipher, images, _planes(images, 1), _planes(images, 2), torch.Generator().manual_seed(0)
        )
    told = {"ciphertext": f"encrypted by\n{cipher.name}"}
    shown = {
        told.get(name, name): column
        for name, column in columns.items()
        if not any(each[3] in name for each in SHOWN_DAMAGES)  # classical repair has tables of its own
    }
    return panel_png(shown)


def draw_path(data: Any) -> bytes:
    """The way of an image into its file: key planes, mask, ciphertext, and the interleaved order of the file."""
    import torch  # noqa: PLC0415

    from encdl.ciphers import postprocess  # noqa: PLC0415
    from encdl.ciphers.damage import DAMAGES  # noqa: PLC0415
    from encdl.ciphers.nn.plane_tensors import unpack  # noqa: PLC0415
    from encdl.ciphers.weights import load  # noqa: PLC0415
    from encdl.keys.key import Key  # noqa: PLC0415
    from encdl.training.panels import panel_png  # noqa: PLC0415

    cipher = load(data["weights"]).cipher
    images = _images()
    planes = _planes(images, 1)
    bits = unpack(planes, 8)[:, 0] * 255
    process = postprocess.create(postprocess.DEFAULT)
    keys = [Key(bytes(32)).image_keys(bytes([number, *NONCE[1:]])) for number in range(len(images))]
    with torch.inference_mode():
        ciphertext = cipher.encrypt(images, planes)
        damaged, lost = DAMAGES["quarter_lost"](process.apply(ciphertext, keys), torch.Generator().manual_seed(3))
        undone, gone = process.undo(damaged, keys), process.undo_lost(lost, keys)
        columns = {
            "image": images,
            "key plane 0": bits[:, :1],
            "key plane 7": bits[:, 7:],
            "mask": cipher.field(ciphertext, planes),
            "image + mask\nmod 256": ciphertext,
            "file, a quarter lost": damaged,
            "put back\nin order": undone,
            "mask taken off": cipher.decrypt(undone, planes),
            "repaired": cipher.restore(undone, planes, gone),
        }
    return panel_png(columns, "from an image to its file, and back from a damaged one")
