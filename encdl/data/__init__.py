"""Data sets, as Lightning data modules over MONAI's data sets and transforms."""
