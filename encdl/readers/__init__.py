"""Networks that read ciphertext (and what they are compared with), usable from plain PyTorch."""

from encdl.readers.backbones import Backbone, BasicUNet, DenseNet, ResNet18, UNet
from encdl.readers.circle import GatedStem, KeylessStem, PositionalStem
from encdl.readers.reader import READER_KEY, LoadedReader, Reader, create, keyed, load
from encdl.readers.stems import KeyedStem, PlainStem, Stem

__all__ = [
    "READER_KEY",
    "Backbone",
    "BasicUNet",
    "DenseNet",
    "GatedStem",
    "KeyedStem",
    "KeylessStem",
    "LoadedReader",
    "PlainStem",
    "PositionalStem",
    "Reader",
    "ResNet18",
    "Stem",
    "UNet",
    "create",
    "keyed",
    "load",
]
