"""Cipher weights on disk: the two that the package ships, and any checkpoint of a training run.

A weights file is a `torch.save` of plain values and tensors, `{"format", "cipher", "config", "state"}`, and is only
ever read with `weights_only=True`: no file can run code. The *weights id* names the parts that decide a ciphertext;
training repair anew does not change it, and files made before still open.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from encdl import ciphers
from encdl.ciphers import AgileCipher, Cipher, KeystreamCipher
from encdl.ciphers.mask_network import FixedConv2d
from encdl.ciphers.names import SHIPPED
from encdl.ciphers.nn.integer import IntegerConv2d
from encdl.utils import torch_files
from encdl.utils.errors import WeightsError

FORMAT = 2
"""Format 1 was that of EncDL 0.1, whose ciphers this version does not have."""
MALFORMED = (ValueError, TypeError, AttributeError)
"""Errors that `torch.load` raises, beside its own, at files of another kind."""

CHECKPOINT_KEY = "encdl_cipher"
"""Where a training checkpoint keeps the cipher's name, its config and how it was trained."""

SETTINGS_KEY = "encdl_settings"
"""Where a training checkpoint keeps the settings of its run."""


Parts = tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]
"""Name, config, state and training of a cipher."""


@dataclass(frozen=True)
class LoadedCipher:
    """A cipher ready for use.

    Attributes:
        cipher: In evaluation mode, on the device asked for.
        id: 16 or 32 hex digits that name its encryption weights.
        name: The shipped name or the path that it was loaded from.
        training: How they were trained (settings, steps, commit, versions, device), as far as the file says.
    """

    cipher: Cipher
    id: str
    name: str
    training: dict[str, Any] = field(default_factory=dict)


def weights_id(cipher: Cipher) -> str:
    """The start of the SHA-256 over everything that decides a ciphertext: cipher, revision, weights.

    32 hex digits where weights are trained, so that nobody makes two files of one id; 16 where all is in the code.
    """
    trained = any(_acting(module) for module in cipher.encryption_modules())
    digest = hashlib.sha256(f"{cipher.name}/{cipher.revision}/{cipher.planes}".encode())
    for module in cipher.encryption_modules():
        for name, tensor in (_acting(module) | _fixed(module)).items():
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[: 32 if trained else 16]


def load(name_or_path: str | Path = "default", device: str | torch.device = "cpu") -> LoadedCipher:
    """Load shipped weights by name, a file that `save` wrote, or a training checkpoint.

    Raises:
        WeightsError: No such file, or it holds something else.
    """
    name = str(name_or_path)
    path = Path(__file__).parent / SHIPPED[name] if name in SHIPPED else Path(name)
    content = _read(path)
    if content.get("format") == FORMAT:
        parts = _of_file(content)
    elif CHECKPOINT_KEY in content:
        parts = _of_checkpoint(content)
    elif "format" in content and "cipher" in content:
        made = " (EncDL 0.1's)" if content["format"] == 1 else ""
        raise WeightsError(f"{path}: weights of format {content['format']!r}{made}: this version reads {FORMAT}")
    else:
        raise WeightsError(f"{path}: not EncDL weights: give a file of `encdl export`, a checkpoint, or default")
    if parts is None:
        raise _damaged(path)
    cipher_name, config, state, training = parts
    if not all(isinstance(value, Tensor) and not value.is_complex() for value in state.values()):
        raise _damaged(path)
    if not torch_files.fits(lambda: ciphers.create(cipher_name, config), state, path):
        raise _misfit(path, cipher_name)
    # float32 whatever torch's default type is at the moment: the sums are exact in it, and it is what `encrypt` uses.
    cipher = ciphers.create(cipher_name, config).float()
    try:
        cipher.load_state_dict({key: value.float() for key, value in state.items()})
    except (RuntimeError, AttributeError):
        raise _misfit(path, cipher_name) from None
    if not all(bool(value.isfinite().all()) for value in cipher.state_dict().values()):
        raise WeightsError(f"{path}: the weights hold NaN or infinity: the training run diverged")
    cipher.eval().requires_grad_(False)
    loaded = LoadedCipher(cipher.to(device), weights_id(cipher), name, training)
    return as_keystream(loaded) if name == KeystreamCipher.name else loaded


def as_keystream(loaded: LoadedCipher) -> LoadedCipher:
    """The `keystream` cipher with the decryption network of `agile`: damage is the same under both, so is its repair.

    Raises:
        WeightsError: It is another cipher.
    """
    if not isinstance(loaded.cipher, AgileCipher | KeystreamCipher):
        raise WeightsError(
            f"{loaded.name}: holds a {loaded.cipher.name} cipher: keystream takes agile's decryption network"
        )
    cipher = KeystreamCipher(**loaded.cipher.config())
    cipher.load_state_dict(loaded.cipher.state_dict())
    cipher = cipher.eval().requires_grad_(False).to(next(loaded.cipher.parameters()).device)
    return LoadedCipher(cipher, weights_id(cipher), loaded.name, loaded.training)


def save(cipher: Cipher, path: str | Path | BinaryIO, training: dict[str, Any] | None = None) -> str:
    """Write a cipher's acting weights (integers as int8) and return their id; replaces an existing file.

    Args:
        cipher: What to write.
        path: Where to: a file, or a stream.
        training: How the weights came about, in plain values.
    """
    integer = {f"{n}.{k}" for n, m in cipher.named_modules() if isinstance(m, IntegerConv2d) for k in _acting(m)}
    acting = _acting(cipher)
    state = {key: acting[key].to(torch.int8) if key in integer else acting[key] for key in acting}
    content = {"format": FORMAT, "cipher": cipher.name, "config": cipher.config(), "state": state}
    torch.save(content | {"training": training or {}}, path)
    return weights_id(cipher)


def without_places(training: dict[str, Any]) -> dict[str, Any]:
    """How weights were trained, less the folders of the machine that did it: weights files are handed on."""
    if "settings" not in training:
        return training
    settings = {**training["settings"]}
    places = ("default_root_dir", "logger", "callbacks")
    settings["trainer"] = {k: v for k, v in settings.get("trainer", {}).items() if k not in places}
    return {**training, "settings": settings}


def _acting(module: nn.Module) -> dict[str, Tensor]:
    """Parameters as they act, by name: those of integer layers rounded and clamped, as int8."""
    state = {key: value.detach().float() for key, value in module.state_dict().items()}
    for name, layer in module.named_modules():
        if isinstance(layer, IntegerConv2d):
            prefix = f"{name}." if name else ""
            state[f"{prefix}weight"] = layer.integer_weight().detach().to(torch.int8)
            state[f"{prefix}bias"] = layer.integer_bias().detach().to(torch.int8)
    return state


def _fixed(module: nn.Module) -> dict[str, Tensor]:
    """Integers that belong to the code and are in no weights file, by name, as int8."""
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, FixedConv2d)}
    return {
        f"{name}.{part}": buffer.to(torch.int8)
        for name, layer in layers.items()
        for part, buffer in layer.named_buffers()
    }


def _of_file(content: dict[str, Any]) -> Parts | None:
    """The content that `save` wrote; None if something is not what it should be."""
    name, training = content.get("cipher"), content.get("training", {})
    config, state = content.get("config"), content.get("state")
    if not isinstance(name, str) or not isinstance(training, dict):
        return None
    return (name, config, state, training) if isinstance(config, dict) and isinstance(state, dict) else None


def _of_checkpoint(content: dict[str, Any]) -> Parts | None:
    """The cipher in a training checkpoint; None if something is not what it should be."""
    origin, whole, settings = (content[CHECKPOINT_KEY], content.get("state_dict"), content.get(SETTINGS_KEY, {}))
    if not isinstance(origin, dict) or not isinstance(whole, dict) or not isinstance(settings, dict):
        return None
    prefix = "cipher."
    state = {str(key).removeprefix(prefix): whole[key] for key in whole if str(key).startswith(prefix)}
    parts = _of_file(origin | {"state": state})
    return parts and (*parts[:3], parts[3] | settings)


def _misfit(path: Path, cipher: str) -> WeightsError:
    return WeightsError(f"{path}: the tensors do not fit cipher {cipher!r} of this version")


def _damaged(path: Path) -> WeightsError:
    return WeightsError(f"{path}: the weights file is damaged: fetch or export it again")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file: give its path, or one of {', '.join(SHIPPED)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's thoughts about files that are refused anyway
            content = torch_files.read(path)
    except (pickle.UnpicklingError, zipfile.BadZipFile, OSError, EOFError, RuntimeError, LookupError, *MALFORMED):
        raise WeightsError(f"{path}: not a weights file, or a damaged one: fetch or export it again") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: not EncDL weights: it holds a {type(content).__name__}")
    return content
