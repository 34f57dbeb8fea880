"""Classical repair of damaged images: what a decryption network has to beat.

Each repair takes a decrypted image whose ciphertext was damaged, and knows what the network knows: which pixels are
lost, and that noise went around the circle of 256 levels. It also knows what the network has to find out, the kind of
damage, and its parameters are chosen for it on validation images (`encdl.metrics.classical_repair.tuning`). Nothing
here needs torch, so that processes that repair start quickly.
"""

from encdl.metrics.classical_repair.methods import KINDS, REPAIRS, Kind, available, defaults, repaired

__all__ = ["KINDS", "REPAIRS", "Kind", "available", "defaults", "repaired"]
