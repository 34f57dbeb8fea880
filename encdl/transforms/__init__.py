"""Encrypted images in MONAI pipelines: a pair of transforms, and a reader of `.encdl` files. See docs/api.md."""

from encdl.transforms.encryption import Decrypt, Decryptd, Encrypt, Encryptd
from encdl.transforms.key_reference import KeyRef
from encdl.transforms.monai_reader import EncdlReader

__all__ = ["Decrypt", "Decryptd", "EncdlReader", "Encrypt", "Encryptd", "KeyRef"]
