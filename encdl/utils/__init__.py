"""Helpers of all of EncDL: errors, atomic files, records, settings, late imports, threads, the compiled library."""
