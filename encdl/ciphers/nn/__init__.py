"""Building blocks of the networks: integer-exact layers, phases, dilated blocks."""
