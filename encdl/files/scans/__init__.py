"""Scans: DICOM series, NIfTI files and stacks as one image each, in the stored integers and on the scan's own grid."""

from encdl.files.scans.flat import FlatScan, flat_scan
from encdl.files.scans.geometry import AS_IT_IS, Geometry
from encdl.files.scans.headers import Slice, dataset_of, image_of, series_of, slices_of, stored_of
from encdl.files.scans.series import Scan, sort_into_scans
from encdl.files.scans.volume import UNKNOWN_GRID, Opened, Volume, is_volume, load_scan, load_volume

__all__ = [
    "AS_IT_IS",
    "UNKNOWN_GRID",
    "FlatScan",
    "Geometry",
    "Opened",
    "Scan",
    "Slice",
    "Volume",
    "dataset_of",
    "flat_scan",
    "image_of",
    "is_volume",
    "load_scan",
    "load_volume",
    "series_of",
    "slices_of",
    "sort_into_scans",
    "stored_of",
]
