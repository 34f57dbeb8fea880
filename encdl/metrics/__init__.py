"""Figures of this field: ciphertext statistics, differential figures, picture quality."""
