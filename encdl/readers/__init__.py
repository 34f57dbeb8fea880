"""Networks that read ciphertext (and what they are compared with), usable from plain PyTorch."""

from encdl.readers.backbones import BACKBONES, Backbone, MonaiNet
from encdl.readers.functional import FunctionalStem
from encdl.readers.keyless_stems import KeylessStem, PositionalStem
from encdl.readers.reader import READER_KEY, LoadedReader, NoReaderError, Reader, create, keyed, load, slim
from encdl.readers.sliding_window import read_windows
from encdl.readers.stems import KeyedStem, PlainStem, Stem

__all__ = [
    "BACKBONES",
    "READER_KEY",
    "Backbone",
    "FunctionalStem",
    "KeyedStem",
    "KeylessStem",
    "LoadedReader",
    "MonaiNet",
    "NoReaderError",
    "PlainStem",
    "PositionalStem",
    "Reader",
    "Stem",
    "create",
    "keyed",
    "load",
    "read_windows",
    "slim",
]
