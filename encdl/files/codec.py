"""From documents to containers and back, slice by slice: memory does not grow with the number of slices."""

from __future__ import annotations

import functools
import io
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from encdl.ciphers.compiled_ciphers import POSTPROCESS, ArrayChunks, FixedMask
from encdl.ciphers.names import how_to_get
from encdl.files import container, formats, series_tags
from encdl.files.container import Chunk, ContainerReader, ContainerWriter, Grid, Header, Metadata, aes_wrap
from encdl.files.container.chunk_grid import Array, Planes, paste
from encdl.files.container.recipients import Recipients
from encdl.files.container.sections import READING, SERIES
from encdl.files.formats.base import (
    ArrayDigest,
    Document,
    array_of,
    check_document,
    chunk_groups,
    content_of,
    document_of,
    slice_shape,
)
from encdl.files.settings import Salvage, Settings
from encdl.keys.derivation import check_study
from encdl.keys.key import Grant, Opener, random_nonce, synthetic_nonce
from encdl.utils.compiled import cores, threads
from encdl.utils.errors import ContainerError, ImageFileError, UsageError, WeightsError
from encdl.utils.worker_thread import ahead, background, beside, each

if TYPE_CHECKING:
    import torch

    from encdl.files.chunk_cipher import ChunkCipher, CipherLike, CipherSlice
    from encdl.files.reading import Words

FILE_PLANES = 8
"""Key planes a pixel in a file: with fewer, a mask has fewer than 256 values, and the image shows through."""
HELD_BYTES = 2**26
"""An array up to this size is read once and held in memory, a larger one read twice: its digest precedes its pixels."""
THREADED_BYTES = 2**21
"""From this size on hashing, tags and files are a thread's: it costs as much as hashing a tenth of that."""
SHARED_BYTES = 2**20
"""From this size on chunks are encrypted and decrypted by threads, and the digest of an array in memory by another."""
MOST_THREADS = 4
"""Of a file: with more, reading and writing take longer than encryption."""
CONTENT_BYTES = 32
Progress = Callable[[int], object]
"""Is told how many bytes of the array more are done."""


@dataclass(eq=False, repr=False)
class Codec:
    """Encrypts documents into containers and back with one cipher and its weights.

    Args:
        cipher: the cipher, on the device where it is to run; a `FixedMask` does without PyTorch what it can.
        weights_id: 16 or 32 hex digits that name its weights; they go into the header and must fit on the way back.
        where: the device where the cipher's weights are.
        whole: gives the whole cipher, if `cipher` is a `FixedMask`; called when it is needed.
    """

    cipher: CipherLike | FixedMask
    weights_id: str
    where: str | torch.device = "cpu"
    whole: Callable[[], CipherLike] | None = None

    @property
    def device(self) -> torch.device:
        """Where the cipher's weights are."""
        import torch  # noqa: PLC0415 - most files do without it

        return torch.device(self.where)

    def encrypt(
        self,
        document: Document,
        opener: Opener,
        stream: BinaryIO,
        settings: Settings | None = None,
        *,
        suffix: str | None = None,
        content: bytes | None = None,
        layer: tuple[Words, int, Mapping[str, Any]] | None = None,
        progress: Progress | None = None,
    ) -> Header:
        """Write the container of a document.

        Args:
            document: what to encrypt.
            opener: a key, or a grant for the study.
            stream: where to write.
            settings: how to encrypt; see `Settings`.
            suffix: ending of the original file's name, kept among the secret metadata; the format's own by default.
            content: the array's digest, if it is known (`content_of`); otherwise a large array is read twice.
            layer: levels of a reading layer and their bits, and what the header says of it (`Header.reading`), if it is
                not to be made by `settings`.
            progress: is told how many more bytes of the array are done.

        Returns:
            The header.

        Raises:
            ImageFileError: the array has a shape or type that no file holds, or changed while it was read.
            UsageError: an unknown setting, fewer than eight key planes, or a grant that cannot encrypt.
            WrongKeyError: a grant for another study.
        """
        settings = settings or Settings()
        check_document(document)
        small, random = math.prod(document.shape) * document.dtype.itemsize <= HELD_BYTES, settings.nonce == "random"
        if not random:  # it comes from the pixels themselves: two images under one nonce would show each other
            document, content = replace(document, content=b""), None
        if kept := small and not (content or document.content):
            parts = [part.copy() if part.flags.writeable else part for part in document.slices()]
            document = replace(document, slices=parts.__iter__)  # changed no more by whoever owns them
        later = kept and random  # a random nonce leaves time for the digest: the beginning tells its length alone
        content = content or (bytes(CONTENT_BYTES) if later else content_of(document))
        suffix = formats.suffix_of(document.format) if suffix is None else suffix
        metadata = Metadata(document.format, suffix, content.hex(), document.rest, settings.identity)
        readable, placed = settings.readable, {} if layer is None else layer[2]
        header = self._header(document, opener, settings, metadata, readable.placed if readable else placed)
        keys = opener.image_keys(header.nonce_bytes, header.study)
        work = self._chunk_cipher(header)
        check = None if kept else ArrayDigest(document.shape, document.layout, header.dtype)
        known = {SERIES: series_tags.section_of(document, opener, header.study, keys, settings.series)}
        behind, resampled = {SERIES: len(known[SERIES])}, None
        if readable is not None or layer is not None:
            from encdl.files.reading import layer_of  # noqa: PLC0415 - hardly any file has a layer

            resampled, behind[READING], known[READING] = layer_of(readable, layer, header, document, keys)
        wrapping = aes_wrap.Writer(stream, keys, header.key_id, header.study) if settings.wrap == "aes" else None

        digest = beside(functools.partial(content_of, document), later and _worth(header) > 1)

        @functools.cache
        def writer() -> ContainerWriter:  # begins with the first chunk, until when the digest has time
            sealed = replace(metadata, content=digest().hex()) if later else metadata
            sealed = sealed.marked(opener.owner_secret(header.study) or b"", keys.nonce)
            return ContainerWriter(cast(BinaryIO, wrapping or stream), header, sealed, keys, behind, settings.signer)

        with background(header.grid.body_bytes >= THREADED_BYTES and cores() > 1) as call:
            looks: list[Callable[[Array], object]] = [resampled.add] if resampled else []
            if check is not None:  # whoever made a slice may use its memory for the next one
                looks.append(lambda part: call(check.update, part.copy() if part.flags.writeable else part))
            numbers = itertools.count()

            def encrypted(group: list[tuple[int, Planes]]) -> Planes:
                own = [container.chunk_keys(keys, number) for number, _ in group]
                return work.encrypt([chunk for _, chunk in group], own)

            groups = chunk_groups(document, header.grid, work.at_once, looks)
            numbered = ([(next(numbers), chunk) for chunk in group] for group in groups)
            for bodies in each(encrypted, numbered, work.together):
                for body in bodies:
                    call(lambda body: writer().chunk(body.reshape(-1).data), body)
                if progress is not None:
                    progress(bodies.size)
        if check is not None and check.digest() != content:
            raise ImageFileError("the pixels changed while they were read: try again")
        for name in behind:
            writer().section(name, resampled.layer(keys).to_bytes() if resampled and name == READING else known[name])
        writer().close()
        if wrapping is not None:
            wrapping.finish()
        if to := settings.recipients:
            head = (header if wrapping is None else wrapping.header).to_bytes()
            stream.write(Recipients.of(opener.image_secret(keys.nonce, header.study), to, keys, head).to_bytes())
        return header

    def decrypt(
        self, reader: ContainerReader, salvage: Salvage | None = None, progress: Progress | None = None
    ) -> Document:
        """The document in a container; its slices are read, verified and decrypted as they are asked for.

        Keep what is made of the slices hidden until all of them came: only then it is known that none is missing.

        Args:
            reader: the opened container.
            salvage: what to do with damaged slices, with a tolerant reader.
            progress: as in `encrypt`.

        Returns:
            The document; where the metadata are damaged, one of format "npy" with nothing beside its pixels. Its
            slices raise `ContainerError` where something was changed, and where the cipher is exact and the
            result is not what was encrypted.

        Raises:
            WeightsError: the file was made with another cipher or other weights.
            ContainerError: the post-processing is not one that this version knows.
            UsageError: the reader is tolerant, and `salvage` is not given.
        """
        if reader.tolerant and salvage is None:
            raise UsageError("a tolerant reader needs to know what to do with damaged slices: give `salvage`")
        header, metadata = reader.header, reader.metadata or Metadata("npy")
        work = self._chunk_cipher(header)
        return Document(
            header.shape,
            np.dtype(header.dtype),
            header.layout,
            metadata.format,
            metadata.rest,
            functools.partial(self._slices, reader, work, salvage, progress),
        )

    def decrypt_slice(self, reader: ContainerReader, number: int) -> Array:
        """One slice, (H, W) or (H, W, C); nothing of the others is read.

        Args:
            reader: the opened container.
            number: which one, counted from 0 through all axes before H.

        Raises:
            WeightsError, ContainerError: as `decrypt`.
            UsageError: there is no such slice.
        """
        header, grid = reader.header, reader.header.grid
        if not 0 <= number < grid.slices:
            raise UsageError(f"{reader.where}: has {grid.slices} slices, 0 to {grid.slices - 1}, and no {number}")
        array = np.empty((grid.height, grid.width, grid.channels), np.dtype(header.dtype).newbyteorder("<"))
        for chunk, planes in self._opened(reader, reader.chunks(number), self._chunk_cipher(header), None):
            paste(array, grid.place(chunk.index), planes)
        return array.reshape(slice_shape(grid.shape, grid.layout)).astype(header.dtype, copy=False)

    def encrypt_array(
        self,
        array: Array,
        opener: Opener,
        settings: Settings | None = None,
        *,
        layout: str | None = None,
        file_format: str = "npy",
    ) -> bytes:
        """Encrypt an array into a container in memory.

        Args:
            array: 1 to 8 axes, integers or floats.
            opener: a key, or a grant for the study.
            settings: how to encrypt; see `Settings`.
            layout: one letter an axis (`encdl.files.container.chunk_grid`); `encdl.files.formats.base.layout_of` the
                shape by default.
            file_format: what `encdl decrypt` shall write.

        Raises:
            ImageFileError, UsageError, WrongKeyError: as `encrypt`.
        """
        stream = io.BytesIO()
        self.encrypt(document_of(array, layout, file_format), opener, stream, settings)
        return stream.getvalue()

    def decrypt_array(self, data: bytes, opener: Opener) -> Array:
        """Decrypt what `encrypt_array` made, exact where the cipher is; errors as `ContainerReader` and `decrypt`."""
        document = self.decrypt(ContainerReader(io.BytesIO(data), opener))
        return array_of(document)

    def cipher_slices(self, reader: ContainerReader) -> Iterator[CipherSlice]:
        """Every slice as a reader of ciphertext takes it; no image is formed. Errors as `decrypt`."""
        import torch  # noqa: PLC0415 - whoever reads ciphertext has it

        from encdl.files.chunk_cipher import CipherSlice  # noqa: PLC0415

        header = reader.header
        grid, work = header.grid, self._chunk_cipher(header)
        shape = (grid.planes, grid.height, grid.width)
        for chunks in _by_slice(reader):
            whole = np.empty(shape, np.uint8)
            ciphertext, mask = (torch.empty(1, *shape, dtype=torch.uint8, device=self.device) for _ in range(2))
            for chunk in chunks:
                place = grid.place(chunk.index)
                rows = slice(place.top, place.top + place.height)
                columns = slice(place.left, place.left + place.width)
                body = _planes(chunk, grid)
                parts = map(torch.as_tensor, work.ciphertext_and_mask([body], [reader.keys(chunk.index)]))
                whole[:, rows, columns] = body
                ciphertext[..., rows, columns], mask[..., rows, columns] = parts
            yield CipherSlice(whole, ciphertext, mask)

    def _header(
        self, document: Document, opener: Opener, settings: Settings, metadata: Metadata, placed: Mapping[str, Any]
    ) -> Header:
        if isinstance(opener, Grant) and opener.scope == "file":
            raise UsageError("a grant for one file cannot encrypt: use the key, or a grant for a study")
        if settings.planes.count != FILE_PLANES:
            raise UsageError(
                f"{settings.planes.count} key planes a pixel would let the image show through: a file is encrypted "
                f"with {FILE_PLANES}; fewer are for experiments with encdl.ciphers"
            )
        study = check_study(settings.study)
        shape = tuple(int(size) for size in document.shape)
        stored: dict[str, Any] = {
            "cipher": self.cipher.name,
            "weights": self.weights_id,
            "shape": shape,
            "dtype": document.dtype.name,
            "layout": document.layout,
            "postprocess": settings.postprocess,
            "tile": container.choose_tile(shape, document.layout, document.dtype.name),
        }
        nonce = random_nonce()
        if settings.nonce == "synthetic":
            # All settings and all metadata belong to it: the same content beside others gets other keys.
            context = stored | {"planes": settings.planes.to_dict()}
            if settings.readable:
                context["readable"] = settings.readable.context()
            encoded = json.dumps(context, sort_keys=True).encode() + b"\0" + metadata.to_bytes()
            nonce = synthetic_nonce(opener, bytes.fromhex(metadata.content), encoded, study)
        return Header(
            **stored, planes=settings.planes, nonce=nonce.hex(), study=study, key_id=opener.key_id, reading=placed
        )

    def _slices(
        self,
        reader: ContainerReader,
        work: ArrayChunks | ChunkCipher,
        salvage: Salvage | None,
        progress: Progress | None,
    ) -> Iterator[Array]:
        header, grid = reader.header, reader.header.grid
        little = np.dtype(header.dtype).newbyteorder("<")
        check = ArrayDigest(header.shape, header.layout, header.dtype)
        shape = (grid.height, grid.width, grid.channels)
        if salvage is not None:
            salvage.damaged.clear()
        current, tiles = np.empty(0, little), 0
        threaded = header.grid.body_bytes >= THREADED_BYTES and cores() > 1
        with background(threaded) as call:
            chunks = ahead(call, reader.chunks()) if threaded else reader.chunks()
            for chunk, planes in self._opened(reader, chunks, work, salvage):
                place = grid.place(chunk.index)
                if tiles == 0:
                    current = np.empty(shape, little)
                paste(current, place, planes)
                tiles = (tiles + 1) % (grid.count // grid.slices)
                if progress is not None:
                    progress(planes.size)
                if tiles == 0:
                    current.flags.writeable = False  # it is still read when whoever gets it goes on
                    call(check.update, current)
                    yield current.reshape(slice_shape(grid.shape, grid.layout)).astype(header.dtype, copy=False)
        told = reader.metadata.content if reader.metadata else ""
        intact = salvage is None or not salvage.damaged
        if self.cipher.exact and intact and told and told != check.digest().hex():
            raise ContainerError(
                f"{reader.where}: is authentic, and does not decrypt to what was encrypted: this machine computes "
                "otherwise (try another --device), or one who can open it put another image into it"
            )

    def _opened(
        self, reader: ContainerReader, chunks: Iterator[Chunk], work: ArrayChunks | ChunkCipher, salvage: Salvage | None
    ) -> Iterator[tuple[Chunk, Planes]]:
        """Every chunk of the reader with its byte planes, decrypted or restored."""
        grid = reader.header.grid

        def opened(group: list[Chunk]) -> list[tuple[Chunk, Planes]]:
            if not group[0].damaged:
                bodies = [_planes(chunk, grid) for chunk in group]
                return list(zip(group, work.decrypt(bodies, [reader.keys(one.index) for one in group]), strict=True))
            assert salvage is not None
            number = grid.place(group[0].index).slice
            if number not in salvage.damaged[-1:]:
                salvage.damaged.append(number)
            return [(group[0], self._guess(reader, salvage, group[0]))]

        groups = _groups(chunks, grid, work.at_once)
        for done in each(opened, groups, 1 if salvage else work.together):
            yield from done

    def _guess(self, reader: ContainerReader, salvage: Salvage, chunk: Chunk) -> Planes:
        body = _planes(chunk, reader.header.grid)
        if not salvage.restore or not chunk.present:
            return np.zeros_like(body)
        work = self._network(reader.header)
        return work.restore(body, reader.keys(chunk.index), chunk.present, chunk.damaged)

    def _chunk_cipher(self, header: Header) -> ArrayChunks | ChunkCipher:
        """A cipher for the chunks of a file with this header; `WeightsError` if it is of another cipher or weights."""
        if (header.cipher, header.weights) != (self.cipher.name, self.weights_id):
            loaded = f"{self.cipher.name!r} with {self.weights_id}"
            raise WeightsError(
                f"these are not the weights of the file ({loaded}): {how_to_get(header.cipher, header.weights)}"
            )
        if isinstance(self.cipher, FixedMask) and header.postprocess in POSTPROCESS:
            worth, calls = _worth(header), -(-header.grid.body_bytes // ArrayChunks.at_once)
            together = min(worth, calls, header.grid.count)
            return ArrayChunks(self.cipher, header.planes, header.postprocess, together, worth // together)
        return self._network(header)

    def _network(self, header: Header) -> ChunkCipher:
        """As `_chunk_cipher`, with the whole cipher by PyTorch, which restores and masks too."""
        from encdl.ciphers import postprocess  # noqa: PLC0415
        from encdl.files.chunk_cipher import ChunkCipher  # noqa: PLC0415

        cipher = self.cipher
        if isinstance(cipher, FixedMask):
            assert self.whole is not None
            cipher = self.whole()
        try:
            process = postprocess.create(header.postprocess)
        except UsageError as error:
            raise ContainerError(f"the file needs a newer EncDL ({error})") from None
        return ChunkCipher(cipher, self.device, header.planes, process)


def _worth(header: Header) -> int:
    """How many threads a file is worth, of those that there may be."""
    return min(threads(), cores(), MOST_THREADS) if header.grid.body_bytes >= SHARED_BYTES else 1


def _groups(chunks: Iterator[Chunk], grid: Grid, at_once: int) -> Iterator[list[Chunk]]:
    """Neighbours of one shape, together at most `at_once` bytes if several; each that is damaged by itself."""
    group: list[Chunk] = []
    for chunk in chunks:
        form = grid.form(chunk.index)
        alone = chunk.damaged or (group and (group[0].damaged or form != grid.form(group[0].index)))
        if group and (alone or (len(group) + 1) * math.prod(form) > at_once):
            yield group
            group = []
        group.append(chunk)
    if group:
        yield group


def _by_slice(reader: ContainerReader) -> Iterator[list[Chunk]]:
    grid = reader.header.grid
    tiles, chunks = grid.count // grid.slices, []
    for chunk in reader.chunks():
        chunks.append(chunk)
        if len(chunks) == tiles:
            yield chunks
            chunks = []


def _planes(chunk: Chunk, grid: Grid) -> Planes:
    return np.frombuffer(chunk.body, np.uint8).reshape(grid.form(chunk.index))
