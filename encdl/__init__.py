"""EncDL: neural ciphers for medical images, and networks that read the ciphertext."""

__version__ = "0.1.0"
