"""Encrypted images in MONAI pipelines: a pair of transforms, and a reader of `.encdl` files. See docs/api.md."""

from encdl.pipeline.key import KeyRef
from encdl.pipeline.reader import EncdlReader
from encdl.pipeline.transforms import Decrypt, Decryptd, Encrypt, Encryptd

__all__ = ["Decrypt", "Decryptd", "EncdlReader", "Encrypt", "Encryptd", "KeyRef"]
