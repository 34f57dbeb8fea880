"""A key server's policy: which client may use which reader on which study, and how much of an image in all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encdl.keys.functional import MAX_NOISE
from encdl.keys.functional_map import FunctionalMap
from encdl.readers import reader
from encdl.readers.functional_files import functional_map
from encdl.readers.two_party.network import Network
from encdl.serving.tokens import HEXADECIMAL
from encdl.utils import settings
from encdl.utils.errors import UsageError, WeightsError

WHAT = "a key server's policy"


@dataclass(frozen=True)
class Client:
    """Who may ask.

    Attributes:
        name: Of the client, in the log.
        token: SHA-256 of its bearer token, 64 hexadecimal characters; the token itself is the client's alone.
        readers: Names of the readers that it may use.
        studies: Names of the studies whose files it may read; "" stands for files of none.
        requests_per_minute: More are refused, until their time has come.
    """

    name: str
    token: str
    readers: list[str]
    studies: list[str]
    requests_per_minute: int = 600

    def __post_init__(self) -> None:
        settings.check_numbers(self, {"requests_per_minute": 1})
        if not isinstance(self.token, str) or not HEXADECIMAL.fullmatch(self.token):
            raise UsageError("token must be the SHA-256 that `encdl keyserver --new-token FILE` told")
        for name in ("readers", "studies"):
            value = getattr(self, name)
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                raise UsageError(f"{name} must be a list of names")


@dataclass(frozen=True)
class Policy:
    """The settings of a policy's file; see docs/functional-keys.md.

    Attributes:
        readers: Checkpoint of each reader, by a name.
        clients: Settings of each `Client`, by its name.
        bits_per_image: Bits that all functional keys of an image may give away together: numbers times their words. Of
            a file of several slices each is an image: as many times as many bits; a volume that a reader takes as a
            whole is one.
        slices: Most slices of a file whose functional keys are given.
        noise: Standard deviation of the noise on the pixels, in levels; see `FunctionalKey.issue`.
        hours: After which functional keys end, which is advisory; None for never.
        two_party: Form of each reader that hosts may read with together with this server, by a name; see `Network`.

    Raises:
        UsageError: A value is of another type, or out of its range.
    """

    readers: dict[str, str]
    clients: dict[str, dict[str, Any]]
    bits_per_image: int
    slices: int = 1
    noise: float = 0.0
    hours: int | None = None
    two_party: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings.check_numbers(self, {"bits_per_image": 0, "slices": 1, "hours": 1}, ("hours",))
        if type(self.noise) not in (int, float) or not 0 <= self.noise <= MAX_NOISE:
            raise UsageError(f"noise is {self.noise!r}: must be from 0 to {MAX_NOISE:g} levels")
        for name in ("readers", "clients"):
            value = getattr(self, name)
            none = not value and not (name == "readers" and self.two_party)
            if not isinstance(value, dict) or none or not all(isinstance(key, str) for key in value):
                raise UsageError(f"{name} must have a line for each, such as `NAME: ...`")
        if not isinstance(self.two_party, dict) or (both := sorted(set(self.two_party) & set(self.readers))):
            named = f": {', '.join(both)} is in readers too" if isinstance(self.two_party, dict) else ""
            raise UsageError(f"two_party must have a line for each reader, such as `NAME: {{...}}`{named}")
        found = self.known_clients()
        if len({each.token for each in found}) < len(found):
            raise UsageError("two clients have the same token: make one for each")

    def known_clients(self) -> list[Client]:
        """All clients; raises `UsageError` for settings that are not those of one."""
        return [self._client(name, given) for name, given in self.clients.items()]

    def _client(self, name: str, given: Any) -> Client:
        try:
            found = Client(name, **given)
        except TypeError:
            raise UsageError(
                f"client {name}: give token, readers and studies, perhaps requests_per_minute, and nothing else"
            ) from None
        except UsageError as error:
            raise UsageError(f"client {name}: {error}") from None
        if unknown := sorted(set(found.readers) - {*self.readers, *self.two_party}):
            raise UsageError(f"client {name}: no reader of the policy: {', '.join(unknown)}")
        return found


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy with its readers' maps.

    Attributes:
        policy: The policy.
        maps: The map of each reader by its id.
        names: Names of the readers by the map's id; readers with the same map are one.
        networks: The form of each reader for two parties by its id, which `names` has too.
    """

    policy: Policy
    maps: Mapping[str, FunctionalMap] = field(default_factory=dict)
    names: Mapping[str, set[str]] = field(default_factory=dict)
    networks: Mapping[str, Network] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> LoadedPolicy:
        """Read a policy and register its readers; relative names of files start where the policy lies.

        Raises:
            UsageError: The file is no policy, or a map's weights lie outside -7..7.
            WeightsError: A reader is missing, damaged or takes no functional keys.
        """
        content = settings.content(Policy, path, WHAT)
        try:
            policy = settings.filled(Policy, None, content, {})
        except TypeError:
            raise UsageError(f"{path}: {WHAT} needs readers, clients and bits_per_image") from None
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
        maps: dict[str, FunctionalMap] = {}
        names: dict[str, set[str]] = {}
        for name, file in policy.readers.items():
            checkpoint = path.parent / str(file)
            loaded = reader.load(checkpoint)
            try:
                made = functional_map(loaded)
            except WeightsError as error:
                raise WeightsError(f"{checkpoint}: {error}") from None
            maps[made.id] = made
            names.setdefault(made.id, set()).add(name)
        networks: dict[str, Network] = {}
        for name, form in policy.two_party.items():
            try:
                network = Network.of(form)
            except UsageError as error:
                raise UsageError(f"{path}: two_party {name}: {error}") from None
            networks[network.id] = network
            names.setdefault(network.id, set()).add(name)
        return cls(policy, maps, names, networks)
