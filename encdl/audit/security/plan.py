"""The plan of an audit: which attacks run on which ciphers and settings, in the order of the report."""

from __future__ import annotations

from dataclasses import dataclass

# isort: off
# In the order of the report.
import encdl.audit.attacks.constant_background
import encdl.audit.attacks.decoders
import encdl.audit.attacks.chosen_plaintext
import encdl.audit.attacks.whitebox
import encdl.audit.attacks.guess_and_determine
import encdl.audit.attacks.distinguisher
import encdl.audit.attacks.jigsaw
import encdl.audit.attacks.adversarial
import encdl.audit.attacks.reidentification
import encdl.audit.attacks.readers
import encdl.audit.attacks.gradients
import encdl.audit.attacks.membership  # noqa: F401
# isort: on

from encdl.audit.attacks.base import ATTACKS, Attack
from encdl.audit.attacks.targets import Aes, Target
from encdl.audit.security.subject import Subject


@dataclass(frozen=True)
class Bout:
    """One attack on one target.

    Attributes:
        attack: Name of the attack.
        target: Name of the target.
        mode: Its mode.
        role: "audited", "reference" or "beside", for comparison.
        reference: Whether the attack has to break this target, or it proves nothing; an audited one may be such too.
    """

    attack: str
    target: str
    mode: str
    role: str
    reference: bool = False

    @property
    def name(self) -> str:
        """Its name among all bouts of an audit."""
        return f"{self.attack}/{self.target}/{self.mode}"


def bouts(subject: Subject, thesis: Target | None, every_mode: bool) -> list[tuple[Bout, Attack, Target]]:
    """Every attack on each target that is meant for it.

    Args:
        subject: What is audited: in each of the attack's modes.
        thesis: The cipher of the thesis, in its default mode, or None.
        every_mode: Whether all modes and references are tried, or the default mode and one reference alone.
    """
    found: list[tuple[Bout, Attack, Target]] = []
    for kind in ATTACKS.values():
        attack = kind()
        modes = attack.modes if every_mode else ("default",)
        listed = [(subject.targets[mode], "audited") for mode in modes if mode in subject.targets]
        weak = attack.references()[: None if every_mode else 1]
        listed += [(each, "reference") for each in weak]
        if every_mode:
            listed += [(each, "beside") for each in (Aes(), thesis) if each is not None]
        bout_of: dict[str, tuple[Bout, Attack, Target]] = {}
        for target, role in listed:
            reference = any((target.name, target.mode) == (each.name, each.mode) for each in weak)
            bout = Bout(attack.name, target.name, target.mode, role, reference)
            bout_of.setdefault(bout.name, (bout, attack, target))
        found += bout_of.values()
    return found
