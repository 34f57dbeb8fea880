"""Figures of this field: ciphertext statistics, differential figures, image quality; and classical repair."""
