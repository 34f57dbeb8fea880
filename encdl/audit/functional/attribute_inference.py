"""Re-identification and attribute inference from W x: whose an image is, and of what kind, without rebuilding it.

Each attack is also run on the pixels themselves, where it must succeed: else it would say nothing about W x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.training.device_augment import augmented

Seen = Callable[[Tensor], Tensor]

GALLERY = 200
"""Images among which one is sought, at the most."""
STEPS, WIDTH = 300, 64


def pixels(images: Tensor) -> Tensor:
    """The images themselves, at 32 pixels a side or fewer: what the reference sees."""
    side = min(32, *images.shape[2:])
    return F.interpolate(images.float(), (side, side), mode="area")


def reidentified(seen: Seen, train: Tensor, test: Tensor, groups: Sequence[str] | None) -> tuple[float, float]:
    """How often the nearest of the other images is of the same patient or cluster of near-duplicates.

    Without known groups an image is sought by a second view of itself, a little turned, shifted and of other contrast.

    Args:
        seen: What the attacker has of images.
        train: uint8, known to the attacker: to bring numbers to one scale.
        test: uint8 (N, C, H, W).
        groups: Of the test images.

    Returns:
        The share of images, and the share by chance.
    """
    scale = _Scale(seen, train)
    if groups is None:
        test = test[:GALLERY]
        views, _ = augmented(test, torch.zeros(len(test)), torch.Generator().manual_seed(0), 0.3, flip=False)
        # Levels are whole numbers, as a second file would have them.
        near = scale(views.round()) @ scale(test).T
        return float((near.argmax(1).cpu() == torch.arange(len(test))).float().mean()), 1 / len(test)
    names = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    own = torch.tensor([names[name] for name in groups])
    same = own[:, None] == own[None, :]
    same.fill_diagonal_(False)
    asked = same.any(1)
    features = scale(test)
    near = features @ features.T
    near.fill_diagonal_(-2.0)
    hit = same[torch.arange(len(test)), near.argmax(1).cpu()]
    if not bool(asked.any()):
        return reidentified(seen, train, test, None)
    chance = same[asked].float().sum(1) / (len(test) - 1)
    return float(hit[asked].float().mean()), float(chance.mean())


def attribute(seen: Seen, parts: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Balanced accuracy on test images of a small network that learns an attribute from what is seen.

    Args:
        seen: What the attacker has of images.
        parts: uint8 images and int64 values of the attribute, for training, validation and testing.
    """
    (train, wanted), (val, held), (test, asked) = parts
    torch.manual_seed(0)
    scale = _Scale(seen, train)
    inputs, classes = scale(train), int(max(each.max() for _, each in parts)) + 1
    device = inputs.device
    network = nn.Sequential(
        nn.Dropout(0.2), nn.Linear(inputs.shape[1], WIDTH), nn.ReLU(), nn.Dropout(0.3), nn.Linear(WIDTH, classes)
    ).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.1)
    count = torch.bincount(wanted, minlength=classes).float().clamp(min=1)
    weights, generator = (count.sum() / (classes * count)).to(device), torch.Generator().manual_seed(0)
    best, found = -1.0, 0.0
    for step in range(STEPS):
        chosen = torch.randint(len(inputs), (128,), generator=generator)
        loss = F.cross_entropy(network.train()(inputs[chosen]), wanted[chosen].to(device), weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step % 25 == 24 and (score := _balanced(network, scale(val), held)) > best:
            best, found = score, _balanced(network, scale(test), asked)
    return found


def mirrored(images: Tensor) -> tuple[Tensor, Tensor]:
    """Every other image mirrored, and which are: an attribute that every data set has."""
    values = torch.arange(len(images)) % 2
    turned = torch.where(values.view(-1, 1, 1, 1).to(images.device) == 1, images.flip(3), images)
    return turned, values


class _Scale:
    """Features of length 1, each number having the training images' mean taken off and their deviation divided by."""

    def __init__(self, seen: Seen, train: Tensor) -> None:
        self._seen = seen
        found = self._of(train)
        self._mean, self._deviation = found.mean(0), found.std(0).clamp(min=1e-3 * float(found.std()) + 1e-9)

    @torch.no_grad()
    def _of(self, images: Tensor) -> Tensor:
        return torch.cat([self._seen(part).flatten(1).float() for part in torch.split(images, 512)])

    def __call__(self, images: Tensor) -> Tensor:
        scaled = (self._of(images) - self._mean) / self._deviation
        features: Tensor = F.normalize(scaled, dim=1) * scaled.shape[1] ** 0.5 / 8
        return features


@torch.no_grad()
def _balanced(network: nn.Module, inputs: Tensor, wanted: Tensor) -> float:
    right = network.eval()(inputs).argmax(1).cpu() == wanted
    return float(torch.stack([right[wanted == value].float().mean() for value in sorted(set(wanted.tolist()))]).mean())
