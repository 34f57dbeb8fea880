"""What all of EncDL may use: errors, atomic files, records, settings, late imports, threads, the compiled library."""
