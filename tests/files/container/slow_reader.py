"""A second reader of containers, from docs/{container,wrap,keys,ciphers}.md: slow plain Python.

It shares no code with the package, and verifies everything. It gives the pixels of files of the cipher `agile` whose
expansion is `full`.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import math
import struct
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from tests.ciphers.reference import mask, sequence, unprocessed

SUB_KEYS = ("planes", "permutation", "diffusion", "authentication", "reading")


def expand(secret: bytes, info: bytes) -> bytes:
    return hmac.digest(secret, info + b"\1", "sha256")


def hkdf(secret: bytes, info: bytes, salt: bytes = bytes(32)) -> bytes:
    return expand(hmac.digest(salt, secret, "sha256"), info)


def root(blocks: list[bytes]) -> bytes:
    if len(blocks) == 1:
        return hashlib.sha256(b"\0" + blocks[0]).digest()
    left = 1 << (len(blocks) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root(blocks[:left]) + root(blocks[left:])).digest()


def blocks(data: bytes) -> list[bytes]:
    return [data[i : i + 4096] for i in range(0, len(data), 4096)]


def padded(length: int) -> int:
    """Padmé, in the words of its paper, from 384 bytes on."""
    length = max(length, 384)
    e = math.floor(math.log2(length))
    s = math.floor(math.log2(e)) + 1
    mask = 2 ** (e - s) - 1
    return (length + mask) & ~mask


def times(a: int, b: int) -> int:
    """In GF(256) of 0x11d."""
    found = 0
    while b:
        found ^= a * (b & 1)
        a, b = (a << 1) ^ (0x11D * (a >> 7)), b >> 1
    return found


def parity(content: bytes, k: int, r: int) -> bytes:
    """Of Reed-Solomon codewords of k bytes, byte i in codeword i mod n; r bytes of parity each, dealt out alike."""
    generator, root = [1], 1
    for _ in range(r):  # times (x - root)
        shifted = [times(root, value) for value in generator]
        generator = [a ^ b for a, b in zip([*generator, 0], [0, *shifted], strict=True)]
        root = times(root, 2)
    n, found = math.ceil(len(content) / k), []
    products = [[times(value, factor) for factor in generator[1:]] for value in range(256)]
    for word in range(n):
        rest = [0] * r
        for place in range(word, k * n, n):
            lead = rest[0] ^ (content[place] if place < len(content) else 0)
            rest = [a ^ b for a, b in zip([*rest[1:], 0], products[lead], strict=True)]
        found.append(rest)
    return bytes(found[word][i] for i in range(r) for word in range(n))


def hpke_open(secret: bytes, sealed: bytes, info: bytes, aad: bytes = b"") -> bytes:
    """RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, first message."""
    kem, suite = b"KEM\0\x20", b"HPKE\0\x20\0\x01\0\x03"

    def extract(suite: bytes, label: bytes, content: bytes, salt: bytes = b"") -> bytes:
        return hmac.digest(salt, b"HPKE-v1" + suite + label + content, "sha256")

    def derive(suite: bytes, label: bytes, key: bytes, context: bytes, size: int) -> bytes:
        return expand(key, size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context)[:size]

    own, sent = X25519PrivateKey.from_private_bytes(secret), sealed[:32]
    agreed = own.exchange(X25519PublicKey.from_public_bytes(sent))
    context = sent + own.public_key().public_bytes_raw()
    shared = derive(kem, b"shared_secret", extract(kem, b"eae_prk", agreed), context, 32)
    context = b"\0" + extract(suite, b"psk_id_hash", b"") + extract(suite, b"info_hash", info)
    prk = extract(suite, b"secret", b"", shared)
    key, nonce = (derive(suite, label, prk, context, size) for label, size in ((b"key", 32), (b"base_nonce", 12)))
    return ChaCha20Poly1305(key).decrypt(nonce, sealed[32:], aad)


def unwrapped(data: bytes, head: bytes, secret: bytes) -> bytes:
    """What `--wrap aes` sealed, by the file's sub-key `wrap`."""
    cipher, body = AESGCM(hkdf(secret, head, head[34:66])), data[len(head) :]
    chunks = [body[i : i + 65_552] for i in range(0, len(body), 65_552)]
    nonces = [i.to_bytes(11, "big") + bytes([i == len(chunks) - 1]) for i in range(len(chunks))]
    return b"".join(cipher.decrypt(nonce, chunk, None) for nonce, chunk in zip(nonces, chunks, strict=True))


class SlowReader:
    """Opens a container; AssertionError or another exception if anything is not as the specification has it.

    The key is a master key, or with `recipient` that of a recipient.
    """

    def __init__(self, data: bytes, master: bytes, public: bytes | None = None, *, recipient: bool = False) -> None:
        entries, mac = b"", b""
        if data[-22:-14] == b"\x89ENCDLR\n":
            size = 88 * struct.unpack_from("<H", data, len(data) - 24)[0] + 32
            start = len(data) - 24 - math.ceil(size / 191) * 64 - size
            block, data = data[start:], data[:start]
            assert block[size:-24] == parity(block[:size], 191, 64)
            assert block[-14:] == parity(block[-24:-14], 10, 14)
            entries, mac = block[: size - 32], block[size - 32 : size]
        self.wrapped = data[:8] == b"\x89ENCDLW\n"
        if self.wrapped:
            version, key_id, nonce, _, length = struct.unpack_from("<H8s16s32sH", data, 8)
            assert version == 1
            outer, named = data[: 68 + length], data[68 : 68 + length]
            secrets = self.secrets(master, nonce, named, entries, outer, recipient)
            data = unwrapped(data, outer, expand(secrets[1], b"wrap"))
        magic, version, length, front = struct.unpack_from("<8sHII", data)
        assert (magic, version) == (b"\x89ENCDL\r\n", 3)
        assert data[18:36] == parity(data[:18], 18, 18)
        over, data = parity(data[36 : 36 + front], 191, 64), data[:14] + data[36:]
        head = data[: 14 + length]
        self.header = header = json.loads(head[14:])
        self.nonce, of_head = bytes.fromhex(header["nonce"]), hashlib.sha256(head).digest()
        if self.wrapped:
            inside = header["key_id"], self.nonce, header["study"].encode()
            assert inside == (key_id.hex(), nonce, named)
        else:
            outer = head
            secrets = self.secrets(master, self.nonce, header["study"].encode(), entries, outer, recipient)
        study, image = secrets
        self.keys = {name: expand(image, name.encode()) for name in SUB_KEYS}
        tags = expand(self.keys["authentication"], b"encdl container tags")
        key = expand(self.keys["authentication"], b"encdl container recipients")
        assert not entries or mac == hmac.digest(key, hashlib.sha256(outer).digest() + entries, "sha256")

        def tag(part: str, content: bytes) -> bytes:
            return hmac.digest(tags, part.encode().ljust(32, b"\0") + of_head + content, "sha256")

        place = len(head) + 34
        table = data[place - 2 : place + 24 * struct.unpack_from("<H", data, place - 2)[0]]
        assert data[len(head) : place - 2] == tag("header", b"")
        place += len(table) + 30
        assert data[place - 32 : place] == tag("sections", table)
        self.sections: dict[str, bytes] = {}
        message = b"encdl signature v1\0" + of_head
        for start in range(2, len(table), 24):
            name, flags, size = struct.unpack_from("<15sBQ", table, start)
            section, named = data[place : place + size], name.rstrip(b"\0").decode()
            assert flags == (named in ("metadata", "pixels"))
            assert flags or section[-32:] == tag(f"section {named}", section[:-32])
            self.sections[named], place = section if flags else section[:-32], place + size
            message += table[start : start + 24] + (root(blocks(section)) if named != "signature" else b"")
        assert place == len(data)
        assert self.sections["parity"] == over
        assert front == length + 64 + len(table) + len(self.sections["metadata"])
        if public is not None:
            Ed25519PublicKey.from_public_bytes(public).verify(self.sections["signature"][8:], message)
        sealing = expand(self.keys["authentication"], b"encdl container metadata")
        plain = AESGCM(sealing).decrypt(bytes(12), self.sections["metadata"], head)
        size = struct.unpack_from("<I", plain)[0]
        self.metadata = json.loads(plain[4 : 4 + size])
        end = 4 + size + self.metadata["rest"]
        self.rest, length = plain[4 + size : end], len(plain)
        assert length == padded(end)
        assert plain[end:] == bytes(length - end)
        if not recipient:
            fields = json.dumps(self.metadata | {"mark": "0" * 32}, sort_keys=True, separators=(",", ":"))
            marked = self.nonce + fields.encode() + self.rest
            assert self.metadata["mark"] == hmac.digest(hkdf(study, b"encdl owner"), marked, "sha256")[:16].hex()
        self._gmac = AESGCM(expand(self.keys["authentication"], b"encdl container blocks" + of_head))

    @staticmethod
    def secrets(
        key: bytes, nonce: bytes, study: bytes, entries: bytes, head: bytes, recipient: bool
    ) -> tuple[bytes, bytes]:
        """Of the study (none for a recipient) and of the image."""
        if not recipient:
            secret = hkdf(key, b"encdl study\0" + study)
            return secret, hkdf(secret, b"encdl image", nonce)
        own = X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()
        name, info = hashlib.sha256(own).digest()[:8], b"encdl recipients v1\0" + hashlib.sha256(head).digest()
        (sealed,) = (entries[i + 8 : i + 88] for i in range(0, len(entries), 88) if entries[i : i + 8] == name)
        return b"", hpke_open(key, sealed, info)

    def chunks(self) -> Iterator[tuple[tuple[int, int, int, int], tuple[int, int, int], bytes]]:
        """Of each chunk (slice, top, left, number), (planes, height, width) and the ciphertext, its tags verified."""
        header = self.header
        sizes, place, number = dict(zip(header["layout"], header["shape"], strict=True)), 0, 0
        height, width, octets = (sizes.get("H", 1), sizes["W"], int("".join(filter(str.isdigit, header["dtype"]))) // 8)
        planes = sizes.get("C", 1) * octets
        slices = math.prod(header["shape"]) // (height * width * sizes.get("C", 1))
        tile = header["tile"]
        corners = itertools.product(range(slices), range(0, height, tile[0]), range(0, width, tile[1]))
        for number, (index, top, left) in enumerate(corners):
            shape = planes, min(tile[0], height - top), min(tile[1], width - left)
            body = self.sections["pixels"][place : place + math.prod(shape)]
            place += len(body)
            for block, content in enumerate(blocks(body)):
                right = self._gmac.encrypt(struct.pack("<QI", number, block), b"", content)
                assert self.sections["pixels"][place : place + 16] == right
                place += 16
            yield (index, top, left, number), shape, body

    def array(self) -> bytes:
        """The array in C order."""
        header, parts = self.header, {}
        assert (header["cipher"], header["planes"]["expansion"]) == ("agile", "full")
        for (index, top, left, number), (planes, height, width), body in self.chunks():
            shape = planes, height, width
            info = b"encdl chunk" + struct.pack("<Q", number)
            keys = {name: expand(self.keys[name], info) for name in ("planes", "permutation", "diffusion")}
            ciphertext = unprocessed(header["postprocess"], body, shape, self.nonce, keys)
            key, size = sequence(header["planes"]["map"], keys["planes"], len(body)), height * width
            masks = b"".join(mask(key[i : i + size], height, width) for i in range(0, len(key), size))
            pixels = [(a - b) % 256 for a, b in zip(ciphertext, masks, strict=True)]
            channels = dict(zip(header["layout"], header["shape"], strict=True)).get("C", 1)
            for i, (plane, y, x) in enumerate(itertools.product(*map(range, shape))):
                octet, channel = divmod(plane, channels)
                parts[index, top + y, left + x, channel, octet] = pixels[i]
        return bytes(parts[place] for place in sorted(parts))

    def levels(self) -> list[int]:
        """Of the reading layer."""
        content = self.sections["reading"]
        flagged, _, *shape = struct.unpack_from("<BBIIII", content)
        bits = flagged % 128
        if flagged >= 128:  # of a volume
            assert shape[1:] == self.header["reading"]["size"]
            shape = [1, *shape]
        info = b"encdl reading layer v1\0" + bytes((bits, 0, len(shape))) + struct.pack(f"<{len(shape)}I", *shape)
        words = content[18:]
        stream = sequence("logistic+chacha20", expand(self.keys["reading"], info), len(words))
        form = f"<{math.prod(shape)}{'H' if bits == 16 else 'I'}"
        pairs = zip(struct.unpack(form, words), struct.unpack(form, stream), strict=True)
        return [(a - b) % 2**bits for a, b in pairs]
