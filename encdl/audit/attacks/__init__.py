"""Attacks on the ciphers, each with the reference that it breaks."""
