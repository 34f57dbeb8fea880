"""Base class of attacks, the scene that they are given, and the result that they return."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from encdl.audit.attacks.targets import Target
from encdl.utils.registry import Registry

Z: Final = 3.290527
"""Half-width of a confidence interval in standard errors: 99.9 %, two-sided. An audit has dozens of findings, of
which at 95 % a few would look broken by chance."""


MOST_KEPT: Final = 2**30
"""Bytes of ciphertexts that a scene keeps."""


@dataclass(frozen=True)
class Scene:
    """The inputs of an attack.

    Attributes:
        train: Images of the kind that the attacker knows to expect, uint8 (N, C, S, S).
        test: Images under attack, from slices or patients of which none is in `train`; uint8 (M, C, S, S).
        train_labels: Class of each training image, int64 (N,).
        test_labels: Class of each test image, int64 (M,).
        device: Where to compute.
        seed: Fixes all draws of the attacker.
        quick: The attacker has a small budget: seconds on two CPU cores for each target, instead of minutes on a GPU.
        patience: How many times the small budget's steps and queries an attacker gets who has no GPU but time.
        large: Test images of 128 pixels or more with their background, uint8 (L, C, T, T), for attacks that live on
            repetition within an image; None: `test` has to do.
        kept: What `ciphertexts` has made so far; a scene with another seed goes on with it.

    Raises:
        ValueError: Too few images.
    """

    train: Tensor
    test: Tensor
    train_labels: Tensor
    test_labels: Tensor
    device: str = "cpu"
    seed: int = 0
    quick: bool = True
    patience: int = 1
    large: Tensor | None = None
    kept: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.train) < 1 or len(self.test) < 2:
            raise ValueError(
                "an attack needs at least 1 training and at least 2 test images, "
                f"got {len(self.train)} and {len(self.test)}"
            )

    def budget(self, small: int, large: int) -> int:
        """Steps or queries: the small budget times `patience` if `quick`, else the large one."""
        return small * self.patience if self.quick else large

    def ciphertexts(self, target: Target, images: Tensor, first: int = 0) -> Tensor:
        """What `target.encrypt` gives; kept, as attacks with other seeds and other attacks ask for the same.

        Args:
            target: See `Target`.
            images: Some of the scene's; they must not change.
            first: See `Target.encrypt`.
        """
        key = (target, first, images.data_ptr(), images.shape)
        if key not in self.kept:
            self.kept[key] = (images, target.encrypt(images, first))  # the images too: while they live, none lie there
            while sum(each.numel() for _, each in self.kept.values()) > MOST_KEPT and len(self.kept) > 1:
                del self.kept[next(iter(self.kept))]
        return self.kept[key][1]

    def generator(self) -> torch.Generator:
        """A fresh CPU generator of the attacker's draws."""
        return torch.Generator().manual_seed(self.seed)

    @property
    def mean_image(self) -> Tensor:
        """The attacker's best guess without any ciphertext: the mean of the training images, uint8 (C, S, S)."""
        return self.train.float().mean(0).round().to(torch.uint8)


@dataclass(frozen=True)
class Finding:
    """The result of one attack against one target.

    Attributes:
        name: Of the attack.
        target: Name of the cipher.
        mode: How it was used; `default` is what a user gets without settings.
        score: What the attack reached; higher is better for the attacker.
        baseline: What is reached without any ciphertext: by the mean image, or by chance.
        unit: Of both: "dB", "accuracy", "bits", …
        broken: Whether the attack beats its baseline beyond chance.
        budget: What the attacker had, in words: pairs, steps, parameters, queries.
        interval: 99.9 % confidence interval of the score, where there is one.
        more: Further figures.
    """

    name: str
    target: str
    mode: str
    score: float
    baseline: float
    unit: str
    broken: bool
    budget: str
    interval: tuple[float, float] | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; infinities become None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


class Attack(ABC):
    """One attack, as far as it is the same for every target.

    Attributes:
        name: In the audit's table, set by `ATTACKS.register`.
        about: One sentence: what the attacker has and wants.
        modes: Modes of a cipher that it is tried on, of `encdl.audit.attacks.targets.MODES`.
        advisory: Its figure is reported, and an audit's verdict does not hang on it.
        seeded: Whether its result depends on the attacker's draws: only then is it worth repeating with other seeds.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    modes: ClassVar[tuple[str, ...]] = ("default",)
    advisory: ClassVar[bool] = False
    seeded: ClassVar[bool] = True

    @abstractmethod
    def run(self, target: Target, scene: Scene) -> Finding:
        """Attack.

        Args:
            target: The victim's black box.
            scene: Images, device and budget.
        """

    def references(self) -> tuple[Target, ...]:
        """Targets that it must break, or it proves nothing."""
        return ()

    def finding(
        self, target: Target, score: float, baseline: float, unit: str, broken: bool, budget: str, **more: Any
    ) -> Finding:
        """A finding of this attack; `interval` among `more` goes to its own field."""
        interval = more.pop("interval", None)
        return Finding(self.name, target.name, target.mode, score, baseline, unit, broken, budget, interval, more)


ATTACKS: Registry[type[Attack]] = Registry("attack", "encdl.attacks", Attack, named=True)
"""In the order of the audit's report."""


def mean_interval(values: Tensor) -> tuple[float, float, float]:
    """Mean and 99.9 % confidence interval (normal approximation) of values, any shape; (mean, low, high)."""
    flat = values.double().flatten()
    mean = flat.mean().item()
    half = Z * flat.std().item() / math.sqrt(len(flat)) if len(flat) > 1 else math.inf
    return mean, mean - half, mean + half


def share_interval(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 99.9 % confidence interval of a share (E. B. Wilson, JASA 22, 1927)."""
    share, square = hits / trials, Z * Z / trials
    centre = (share + square / 2) / (1 + square)
    half = Z * math.sqrt(share * (1 - share) / trials + square / (4 * trials)) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)


def auroc(positives: Tensor, negatives: Tensor) -> float:
    """Area under the ROC curve: how often a positive's score is above a negative's, ties counted half; both (N,)."""
    apart = positives.double().unsqueeze(1) - negatives.double()
    return float((apart > 0).double().mean() + (apart == 0).double().mean() / 2)


def auroc_interval(area: float, positives: int, negatives: int) -> tuple[float, float]:
    """99.9 % confidence interval of an area under the ROC curve.

    The areas from which the one found lies less than `Z` of their own standard errors away, as Wilson's interval does
    for shares: method 5 of R. G. Newcombe, Statistics in Medicine 25, 2006, by the variance of J. A. Hanley and B. J.
    McNeil, Radiology 143, 1982. It stays within 0..1 and has a width at 0 and 1 too.

    Args:
        area: The estimate, 0 to 1.
        positives: How many scores of positives it comes from, at least 1.
        negatives: How many of negatives, at least 1.
    """
    pairs, more = positives * negatives, (positives + negatives) / 2 - 1

    def outside(true: float) -> bool:
        spread = true * (1 - true) * (1 + more * ((1 - true) / (2 - true) + true / (1 + true))) / pairs
        return (area - true) ** 2 > Z * Z * spread

    ends = []
    for end in (0.0, 1.0):
        far, near = end, area
        for _ in range(60):
            middle = (far + near) / 2
            far, near = (middle, near) if outside(middle) else (far, middle)
        ends.append(far)
    return ends[0], ends[1]


def image_psnr(estimates: Tensor, images: Tensor) -> Tensor:
    """PSNR of each estimate, any float or uint8 levels 0..255 (B, C, H, W): float64 (B,) in dB, at most 100."""
    error = (estimates.double() - images.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(255.0**2 / error.clamp(min=255.0**2 / 1e10))


def reconstruction(
    attack: Attack,
    target: Target,
    scene: Scene,
    estimates: Tensor,
    budget: str,
    truth: Tensor | None = None,
    **more: Any,
) -> Finding:
    """The finding of an attack that guesses images.

    It has broken the target if two things hold: its guesses are better than the mean image, and each fits its own
    image better than the guesses from other images' ciphertexts do. The second alone is information that leaks:
    it is in `more` as `advantage_db` with its interval, and `leaks`.

    Args:
        attack: Whose finding.
        target: What was attacked.
        scene: Its training images make the mean image.
        estimates: Levels 0..255, float or uint8 (M, C, H, W).
        budget: See `Finding`.
        truth: The images that were to be found, uint8 of the same shape; the scene's test images if None.
        more: Further figures.
    """
    truth = (scene.test if truth is None else truth).to(estimates.device)
    mean = scene.mean_image[None].float().to(truth.device)
    if truth.shape[2:] != mean.shape[2:]:
        mean = F.interpolate(mean, truth.shape[2:], mode="bilinear")
    own = image_psnr(estimates, truth)
    count = len(truth)
    shifts = range(1, min(count, 9))
    others = torch.stack([image_psnr(estimates.roll(shift, 0), truth) for shift in shifts]).mean(0)
    score, low, high = mean_interval(own)
    baseline = float(image_psnr(mean.expand_as(truth), truth).mean())
    advantage, least, most = mean_interval(own - others)
    leaks = least > 0
    return attack.finding(
        target,
        score,
        baseline,
        "dB",
        leaks and score > baseline,
        budget,
        interval=(low, high),
        advantage_db=advantage,
        advantage_interval=(least, most),
        leaks=leaks,
        **more,
    )


def guessing(attack: Attack, target: Target, hits: int, trials: int, chance: float, budget: str) -> Finding:
    """The finding of an attack that guesses one of several: broken if chance lies below its confidence interval."""
    low, high = share_interval(hits, trials)
    return attack.finding(
        target, hits / trials, chance, "accuracy", low > chance, budget, interval=(low, high), trials=trials
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value
