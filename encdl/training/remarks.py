"""Warnings and messages of libraries that users of a training need not read."""

from __future__ import annotations

import logging
import warnings

HARMLESS = (
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*The `srun` command is available on your system but is not used.*",
    r".*does not have many workers which may be a bottleneck.*",
    r"The dirpath has changed from .*",
    r".*The number of training batches .* is smaller than the logging interval.*",
)
"""Warnings of libraries about themselves, or about what is right at this size of data."""

REMARKS = ("Tip:", "TPU available: False", "Detected KeyboardInterrupt", "to estimate number of stepping")
"""What Lightning says of its maker's wares, of hardware that EncDL does not use, of signals, which EncDL tells, and of
itself."""


def leave_out() -> None:
    """Neither print the warnings nor the remarks, from now on."""
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_worth_telling)


def _worth_telling(record: logging.LogRecord) -> bool:
    """Whether it is none of `REMARKS`."""
    return not any(words in record.getMessage() for words in REMARKS)
