"""Networks that read ciphertext (and what they are compared with), usable from plain PyTorch."""

from encdl.readers.backbones import BACKBONES, Backbone, DenseNet, ResNet18
from encdl.readers.functional import FunctionalStem
from encdl.readers.keyless_stems import KeylessStem, PositionalStem
from encdl.readers.reader import READER_KEY, LoadedReader, NoReaderError, Reader, create, keyed, load
from encdl.readers.segmenters import BasicUNet, SwinUNETR, UNet
from encdl.readers.sliding_window import read_windows
from encdl.readers.stems import KeyedStem, PlainStem, Stem

__all__ = [
    "BACKBONES",
    "READER_KEY",
    "Backbone",
    "BasicUNet",
    "DenseNet",
    "FunctionalStem",
    "KeyedStem",
    "KeylessStem",
    "LoadedReader",
    "NoReaderError",
    "PlainStem",
    "PositionalStem",
    "Reader",
    "ResNet18",
    "Stem",
    "SwinUNETR",
    "UNet",
    "create",
    "keyed",
    "load",
    "read_windows",
]
