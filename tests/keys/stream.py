"""Write a map's bytes to standard output without end, for dieharder and other judges of randomness.

    python -m tests.keys.stream logistic | dieharder -a -g 200
    python -m tests.keys.stream logistic --segment 4096 | dieharder -a -g 200

Segment i is drawn under the seed SHA-256("label i"): long segments judge long sequences, short ones judge the
start-up and what images with neighbouring seeds have in common.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from hashlib import sha256

from encdl.keys import MAPS, byte_sequence

BATCH_BYTES = 1 << 22


def main() -> None:
    """Stream until the reader stops."""
    parser = argparse.ArgumentParser(description="Stream the bytes of a map.")
    parser.add_argument("map", choices=tuple(MAPS))
    parser.add_argument("--segment", type=int, default=1 << 26, help="bytes drawn under one seed")
    parser.add_argument("--label", default="judge", help="picks the seeds")
    options = parser.parse_args()
    batch = max(1, BATCH_BYTES // options.segment)
    with contextlib.suppress(BrokenPipeError):
        for start in itertools.count(0, batch):
            seeds = [sha256(f"{options.label} {start + i}".encode()).digest() for i in range(batch)]
            sys.stdout.buffer.write(byte_sequence(options.map, seeds, options.segment).tobytes())


if __name__ == "__main__":
    main()
