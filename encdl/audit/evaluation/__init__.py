"""Evaluation of ciphers: exactness, statistics, and repair beside classical repair, with intervals."""

from encdl.audit.evaluation.cipher import REFERENCES, ROWS, SIZES, Evaluation, per_seed, resized
from encdl.audit.evaluation.earlier import read as read_earlier
from encdl.audit.evaluation.figures import figure_png, panel
from encdl.audit.evaluation.run import Result, evaluate, load_rows, missing_repairs, record
from encdl.audit.evaluation.settings import Settings, read
from encdl.audit.evaluation.table import tables

__all__ = [
    "REFERENCES",
    "ROWS",
    "SIZES",
    "Evaluation",
    "Result",
    "Settings",
    "evaluate",
    "figure_png",
    "load_rows",
    "missing_repairs",
    "panel",
    "per_seed",
    "read",
    "read_earlier",
    "record",
    "resized",
    "tables",
]
