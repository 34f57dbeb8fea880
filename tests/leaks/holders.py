"""Objects that hold a secret, and their secrets."""

from __future__ import annotations

import numpy as np

from encdl.keys.key import Key
from encdl.keys.passphrases import Passphrase
from tests.leaks.search import secrets_of

KEY = Key(np.random.default_rng(1).bytes(32))
NONCE = bytes(range(16))
PHRASE = Passphrase(KEY._secret.hex())

HOLDERS = {
    "passphrase": PHRASE,
    "key": KEY,
    "study grant": KEY.grant_study("S"),
    "file grant": KEY.grant_file(NONCE, "S"),
    "image keys": KEY.image_keys(NONCE, "S"),
}

SECRETS = secrets_of(KEY, "key", [(NONCE, "S")])
