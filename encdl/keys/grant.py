"""Grants: secrets that open one study or one file, and nothing else of the owner's."""

from __future__ import annotations

import hmac
import os
from datetime import UTC, datetime

from encdl.keys import derivation, grant_claims, passphrases, secret_files
from encdl.keys.derivation import ImageKeys, Unpicklable
from encdl.keys.grant_claims import Scope, Terms
from encdl.keys.passphrases import Asked, Passphrase
from encdl.keys.recipients import RecipientPublicKey, seal_line
from encdl.utils import canonical_json
from encdl.utils.errors import ExpiredGrantError, KeyFileError, UsageError, WrongKeyError

__all__ = ["Grant", "Scope", "utc_now"]


def utc_now() -> datetime:
    """The time by this machine's clock; tests put another in its place."""
    return datetime.now(UTC)


class Grant(Unpicklable):
    """A derived secret that opens every file of one study, or one file; a `Key` makes it.

    A grant does not lead back to the master key, nor to other studies or files. Its secret shows in no repr,
    no error and no pickle. Its expiry is advisory: EncDL refuses it afterwards, but whoever holds the secret
    can change the file that says so, set the clock back, or use another program.
    """

    __slots__ = ("_mark", "_secret", "_terms")

    def __init__(
        self,
        scope: Scope,
        study: str,
        nonce: bytes | None,
        key_id: str,
        secret: bytes,
        *,
        expires: datetime | None = None,
        mark: bytes = b"",
    ) -> None:
        if scope not in {"study", "file"} or (scope == "file") != (nonce is not None):
            raise UsageError("a grant is for a study (no nonce) or for a file (with its nonce)")
        study = derivation.check_study(study)
        nonce = None if nonce is None else derivation.check_nonce(nonce)
        if scope == "study" and not study:
            raise UsageError("files without a study cannot be granted together: name a study, or grant one file")
        if len(secret) != derivation.SECRET_BYTES:
            raise UsageError(f"a grant's secret has {derivation.SECRET_BYTES} bytes")
        self._terms = Terms(scope, study, nonce, key_id, None if expires is None else grant_claims.in_utc(expires))
        self._secret = bytes(secret)
        self._mark = bytes(mark)

    @classmethod
    def issue(
        cls, issuer: bytes, study: str, nonce: bytes | None, key_id: str, secret: bytes, expires: datetime | None
    ) -> Grant:
        """A grant with its issuer's mark; `Key` and a study's grant have methods that say what for.

        Args:
            issuer: the secret above `secret`: for a study the master key, for a file its study's.
            study: the study.
            nonce: of the file; None for the whole study.
            key_id: of the master key.
            secret: what the grant gives away.
            expires: when it ends; None for never.
        """
        scope: Scope = "study" if nonce is None else "file"
        bare = cls(scope, study, nonce, key_id, secret, expires=expires)
        return cls(scope, study, nonce, key_id, secret, expires=bare.expires, mark=bare._terms.mark(issuer))

    def is_issued_by(self, issuer: bytes, secret: bytes) -> bool:
        """Whether scope, study, nonce and expiry are as the issuer set them; arguments as of `issue`."""
        genuine = hmac.compare_digest(self._secret, secret)
        return genuine and hmac.compare_digest(self._mark, self._terms.mark(issuer))

    @property
    def scope(self) -> Scope:
        """The scope: a "study", or one "file"."""
        return self._terms.scope

    @property
    def study(self) -> str:
        """The study that it opens, or that its file belongs to ("" for none)."""
        return self._terms.study

    @property
    def nonce(self) -> bytes | None:
        """The nonce of the file that it opens; None for a whole study."""
        return self._terms.nonce

    @property
    def key_id(self) -> str:
        """The id of the master key that it comes from: 16 hexadecimal characters."""
        return self._terms.key_id

    @property
    def expires(self) -> datetime | None:
        """When EncDL's tools begin to refuse it, in UTC; None for never. Advisory: see the class."""
        return self._terms.expires

    def check_expiry(self) -> None:
        """Refuse to go on once the grant's time is over; every use of it does so too.

        Raises:
            ExpiredGrantError: it is.
        """
        if self.expires is not None and utc_now() >= self.expires:
            raise ExpiredGrantError(
                f"the grant for {self._what()} expired on {self.expires:%Y-%m-%d at %H:%M:%S} UTC: ask the key's "
                "owner for a new one"
            )

    def image_secret(self, nonce: bytes, study: str = "") -> bytes:
        """The secret of the image with this nonce, 32 bytes.

        Raises:
            WrongKeyError: the grant is for another study or another file, or it has expired.
            UsageError: the nonce is not 16 bytes, or the study's name cannot be one.
        """
        self._check_study(study)
        nonce = derivation.check_nonce(nonce)
        if self.nonce is None:
            return derivation.image_secret(self._secret, nonce)
        if nonce != self.nonce:
            raise WrongKeyError(
                f"this grant opens {self._what()} alone, and this is another file, with nonce {nonce.hex()}:"
                " ask the key's owner for a grant for it"
            )
        return self._secret

    def image_keys(self, nonce: bytes, study: str = "") -> ImageKeys:
        """The sub-keys of the image with this nonce; errors as `image_secret`."""
        return derivation.image_keys(self.image_secret(nonce, study), bytes(nonce))

    def nonce_secret(self, study: str = "") -> bytes:
        """The secret behind synthetic nonces (see `encdl.keys.key`).

        Raises:
            WrongKeyError: the grant is for another study, or for one file; or it has expired.
        """
        self._check_study(study)
        if self.scope == "file":
            raise WrongKeyError("a grant for one file cannot encrypt others: use the key or a grant for a study")
        return derivation.hkdf(self._secret, derivation.OF_NONCES)

    def owner_secret(self, study: str = "") -> bytes | None:
        """The secret that marks files of the study as its owner's; None for a grant for one file."""
        self._check_study(study)
        return None if self.scope == "file" else derivation.hkdf(self._secret, derivation.OF_OWNER)

    def grant_file(self, nonce: bytes, study: str | None = None, expires: datetime | None = None) -> Grant:
        """Grant one file of this grant's study.

        Args:
            nonce: the file's, 16 bytes.
            study: of the file; this grant's by default.
            expires: not after this grant's own end, which is the default.

        Raises:
            WrongKeyError: the study is another one, or this grant is for one file, or it has expired.
            UsageError: the new grant would outlive this one.
        """
        self._check_study(self.study if study is None else study)
        if self.scope == "file":
            raise WrongKeyError("a grant for one file cannot grant others: use the key or a grant for a study")
        nonce = derivation.check_nonce(nonce)
        end = self.expires if expires is None else grant_claims.in_utc(expires)
        if self.expires is not None and end is not None and end > self.expires:
            raise UsageError(
                f"the grant for study {self.study!r} ends on {self.expires:%Y-%m-%d}: one made from it cannot end later"
            )
        secret = derivation.image_secret(self._secret, nonce)
        return Grant.issue(self._secret, self.study, nonce, self.key_id, secret, end)

    def has_issued(self, grant: Grant) -> bool:
        """As `Key.has_issued`, of grants for one file of this grant's study."""
        if self.scope == "file" or grant.nonce is None or (grant.key_id, grant.study) != (self.key_id, self.study):
            return False
        return grant.is_issued_by(self._secret, derivation.image_secret(self._secret, grant.nonce))

    def save(
        self,
        path: str | os.PathLike[str],
        force: bool = False,
        passphrase: Passphrase | None = None,
        to: RecipientPublicKey | None = None,
    ) -> None:
        """Write the grant to a file that only its owner can read.

        Args:
            path: where to.
            force: replace a file that is there already.
            passphrase: lock the file with it.
            to: seal it to this recipient instead.

        Raises:
            OutputExistsError: the file is there and `force` is False.
            KeyFileError: it cannot be written.
            UsageError: the passphrase is too short.
        """
        header = self._terms.fields() | {"mark": self._mark.hex()}
        fields = [secret_files.GRANT_PREFIXES[1], secret_files.encode_field(canonical_json.encoded(header))]
        if not self._mark:  # it came from a file of version 1
            del header["mark"], header["expires"]
            fields = [secret_files.GRANT_PREFIXES[0], secret_files.encode_field(canonical_json.encoded(header))]
        line = secret_files.make_line(fields, self._secret)
        if passphrase is not None:
            line = passphrases.lock(line, "grant", self.key_id, passphrase)
        elif to is not None:
            line = seal_line(line, self.key_id, to)
        secret_files.write(path, line, force=force)

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: Asked = None) -> Grant:
        """Read a grant file; one that has expired too.

        Args:
            path: the file.
            passphrase: the passphrase, or what asks for it, in case the file is locked with one.

        Raises:
            KeyFileError: missing, unreadable, of another kind, damaged, or locked with another passphrase.
        """
        line = passphrases.unlock(path, secret_files.read(path), passphrase)
        fields, secret = secret_files.parse(path, line, secret_files.GRANT_PREFIXES)
        return cls.from_fields(path, fields, secret)

    @classmethod
    def parse(cls, data: bytes, name: str = "the grant") -> Grant:
        """Read the content of a grant file that came over a wire, without a file.

        Args:
            data: the content, a line.
            name: what errors call it.

        Raises:
            KeyFileError: of another kind, damaged, or locked with a passphrase.
        """
        line = secret_files.only_line(name, data)
        if passphrases.is_locked(line):
            raise KeyFileError(f"{name} is locked with a passphrase: send one that is not")
        fields, secret = secret_files.parse(name, line, secret_files.GRANT_PREFIXES)
        return cls.from_fields(name, fields, secret)

    @classmethod
    def from_fields(cls, path: str | os.PathLike[str], fields: list[str], secret: bytes) -> Grant:
        """Build a grant from a file's parts (untrusted).

        Raises:
            KeyFileError: its header is not a grant's.
        """
        try:
            its, mark = grant_claims.parse(fields)
            public = (its.scope, its.study, its.nonce, its.key_id)
            return cls(*public, secret, expires=its.expires, mark=mark)
        except (ValueError, TypeError, RecursionError, UsageError):
            raise KeyFileError(f"{path} is not a grant that this EncDL can read: ask for a new one") from None

    def _check_study(self, study: str) -> None:
        self.check_expiry()
        if derivation.check_study(study) != self.study:
            raise WrongKeyError(
                f"this grant opens {self._what()} alone, and this file belongs to {_describe(study)}:"
                " ask the key's owner for a grant for it"
            )

    def _what(self) -> str:
        if self.nonce is None:
            return _describe(self.study)
        study = f" of {_describe(self.study)}" if self.study else ""
        return f"the file with nonce {self.nonce.hex()}{study}"

    def __repr__(self) -> str:
        nonce = "" if self.nonce is None else f", nonce={self.nonce.hex()}"
        end = f", expires={self._terms.end}" if self.expires else ""
        return f"Grant(scope={self.scope}, study={self.study!r}{nonce}, key={self.key_id}{end})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grant):
            return NotImplemented
        return hmac.compare_digest(self._secret, other._secret) and self._terms == other._terms

    def __hash__(self) -> int:
        return hash(self._terms)


def _describe(study: str) -> str:
    return f"study {study!r}" if study else "no study"
