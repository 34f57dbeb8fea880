"""The Python API, which the command line calls too: keys, arrays and files. `import encdl` offers all of it by name.

Arrays and containers stay in memory; files are streamed slice by slice, as by the verbs. Errors are those of
`encdl.utils.errors`, one line each.
"""

from encdl.api.arrays import Salvaged, decrypt, decrypt_slice, encrypt, salvage
from encdl.api.files import decrypt_file, decryption, encrypt_file, read_header, rekey_file, rekeying
from encdl.api.openers import grant, open_key
from encdl.api.reading import (
    evaluate,
    grant_functional,
    load_functional_reader,
    load_reader,
    place_mask,
    predict,
    predict_functional,
    readable_for,
    segment,
)
from encdl.files.codecs import load_codec
from encdl.files.encrypting import EncryptionSettings, encryption
from encdl.files.folders import convert_folder

__all__ = [
    "EncryptionSettings",
    "Salvaged",
    "convert_folder",
    "decrypt",
    "decrypt_file",
    "decrypt_slice",
    "decryption",
    "encrypt",
    "encrypt_file",
    "encryption",
    "evaluate",
    "grant",
    "grant_functional",
    "load_codec",
    "load_functional_reader",
    "load_reader",
    "open_key",
    "place_mask",
    "predict",
    "predict_functional",
    "read_header",
    "readable_for",
    "rekey_file",
    "rekeying",
    "salvage",
    "segment",
]
