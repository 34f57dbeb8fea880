"""Keys, grants and nonces; pseudo-random sequences; binary key planes. Free of torch."""

from encdl.keys.derivation import ImageKeys
from encdl.keys.grant import Grant
from encdl.keys.key import Key, Opener, load_opener, random_nonce, synthetic_nonce
from encdl.keys.planes import (
    EXPANSIONS,
    LeakyExpansionWarning,
    PlaneSpec,
    WeakMapWarning,
    WeakPlanesWarning,
    key_bits,
    key_planes,
)
from encdl.keys.sequences import MAPS, byte_sequence, integer_sequence

__all__ = [
    "EXPANSIONS",
    "MAPS",
    "Grant",
    "ImageKeys",
    "Key",
    "LeakyExpansionWarning",
    "Opener",
    "PlaneSpec",
    "WeakMapWarning",
    "WeakPlanesWarning",
    "byte_sequence",
    "integer_sequence",
    "key_bits",
    "key_planes",
    "load_opener",
    "random_nonce",
    "synthetic_nonce",
]
