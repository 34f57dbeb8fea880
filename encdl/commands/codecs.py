"""What the file verbs share: the right cipher for a file."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from encdl.commands.common import load_cipher
from encdl.files.container import Header
from encdl.utils.errors import WeightsError

if TYPE_CHECKING:
    from encdl.files.codec import Codec


class Codecs:
    """The codec that each file asks for, loaded once.

    Args:
        args: with `weights`, `device` and `jobs`.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._loaded: dict[str, Codec] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Codec:
        """The codec with the weights of this name, or of this file."""
        from encdl.files.codec import Codec  # noqa: PLC0415

        with self._lock:
            if name not in self._loaded:
                if not self._loaded:
                    _share_cores(self._args.jobs)
                loaded = load_cipher(name, self._args.device)
                device = next(loaded.cipher.parameters()).device
                self._loaded[name] = Codec(loaded.cipher, loaded.id, device=device)
            return self._loaded[name]

    def of(self, header: Header, where: Path) -> Codec:
        """The codec for a file, if its cipher comes with EncDL; it compares the weights' id itself."""
        from encdl.ciphers.weights import SHIPPED_IDS, how_to_get  # noqa: PLC0415

        name = self._args.weights or SHIPPED_IDS.get(header.weights)
        if name is None:
            raise WeightsError(f"{where}: {how_to_get(header.cipher, header.weights)}")
        return self.get(name)


def _share_cores(jobs: int) -> None:
    """Threads of one network that wait for those of another make all of them slow."""
    if jobs > 1:
        import torch  # noqa: PLC0415

        torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
