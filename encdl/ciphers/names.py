"""Names and ids of what comes with EncDL: ciphers' weights, and post-processings. PyTorch is not needed here."""

from __future__ import annotations

from typing import Final

SHIPPED: Final = {"default": "agile.pt", "agile": "agile.pt", "keystream": "agile.pt", "thesis": "thesis.pt"}
"""Weights that go by a name instead of a path. Damage is the same under `agile` and `keystream`: so is its repair."""

SHIPPED_IDS: Final = {
    "fddc91651b4ad8c6": "default",
    "85cba7871dc63a69": "keystream",
    "b0ec59c805815e26a3517f9a0ecd85b3": "thesis",
}
"""Ids of what the shipped weights encrypt with, and the names to load them by.

The first two are those of all weights of these ciphers: what encrypts there is fixed; training changes repair alone.
"""

FIXED: Final = {
    "default": ("agile", "fddc91651b4ad8c6"),
    "agile": ("agile", "fddc91651b4ad8c6"),
    "keystream": ("keystream", "85cba7871dc63a69"),
}
"""Cipher and id of those shipped weights, by name, of which all that encrypts is fixed."""

POSTPROCESS: Final = ("interleave", "none", "confusion", "diffusion", "both")
"""Names of post-processings; the first is the default."""


def how_to_get(cipher: str, needed: str) -> str:
    """The weights that a file needs, and where to get them; the second half of an error message.

    Args:
        cipher: Name of the cipher that made the file.
        needed: Id of its weights.
    """
    wanted = f"it needs cipher {cipher!r} with weights {needed}"
    if needed in SHIPPED_IDS:
        return f"{wanted}, which come with EncDL: give --weights {SHIPPED_IDS[needed]}"
    return (
        f"{wanted}, which do not come with EncDL: ask who encrypted it for the weights file (`encdl export` makes it "
        "and prints this id), and give it with --weights"
    )
