"""Trained readers behind HTTP: as an MLflow model (`model`, `logged`) and as a small server (`app`).

Both take what `service` reads: ciphertext containers, each with a grant for it, and give what `encdl predict` gives.
"""
