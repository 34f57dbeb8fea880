"""Other recipients for containers: the block behind a file is written anew, all before it stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from encdl.files import container, file_names
from encdl.files.folders import Done
from encdl.keys.key import Opener
from encdl.keys.recipients import RecipientPublicKey
from encdl.utils import atomic

_AT_ONCE = 2**20


class Readdressing:
    """Adds recipients to files, or takes them off.

    Args:
        opener: what opens the files now: a key, a grant or the key of a recipient.
        add: who shall open them too.
        remove: ids of public keys that shall open them no more. What they opened before stays open to them.
    """

    what = f"{container.SUFFIX} file"

    def __init__(self, opener: Opener, add: Sequence[RecipientPublicKey] = (), remove: Sequence[str] = ()) -> None:
        self._opener, self._add, self._remove = opener, add, remove
        self.unknown = set(remove)
        """Of the ids to take off those that no file had."""

    def wants(self, path: Path) -> bool:
        """Whether a file of a folder is a container, by its content or ending."""
        return file_names.is_encrypted(path)

    def write(self, path: Path) -> Done:
        """Give one file its recipients, in one step; nothing is written if they are so already.

        Raises:
            ContainerError: the header, the metadata or the list of recipients was changed.
            WrongKeyError: the opener is for something else.
            UsageError: nobody could open the file any more.
        """
        with container.opened(path, self._opener) as reader:
            old, fresh = reader.recipients, reader.readdressed(self._add, self._remove)
            before, ids = (old.ids if old else ()), (fresh.ids if fresh else ())
            size = reader.header.grid.body_bytes
            self.unknown.difference_update(before)
            told = f"{len(ids)} recipient{'s' * (len(ids) != 1)}: {', '.join(ids) or 'none'}"
            if ids == before:
                atomic.remove_leftover(path)
                return Done(size, there=True, told=told)
            with path.open("rb") as source, atomic.writing(path, force=True) as stream:
                left = reader.end
                while left and (part := source.read(min(left, _AT_ONCE))):
                    stream.write(part)
                    left -= len(part)
                stream.write(fresh.to_bytes() if fresh else b"")
        return Done(size, told=told)
