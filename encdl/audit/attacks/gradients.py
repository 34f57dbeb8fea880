"""Reading an image out of the gradient that training a reader on it gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from encdl.audit.attacks.base import ATTACKS, Finding, Scene, reconstruction
from encdl.audit.attacks.readers import VICTIM, OnReader, SmallReader
from encdl.audit.attacks.targets import FixedXor, Target

SMOOTHNESS = 0.1
"""Weight of the total variation, of levels 0 to 1, beside the cosine distance of the gradients."""


@ATTACKS.register("reader_gradients")
class ReaderGradients(OnReader):
    """Reads an image out of the gradient that training on it alone gives the stem.

    The stem's features are those of a plaintext network with the same weights, so its gradients are too: what leaks
    from a plaintext network's gradients (L. Zhu, Z. Liu, S. Han, "Deep leakage from gradients", NeurIPS 2019) leaks
    from these, without a key. The attack descends on an image whose gradient through the plain twin has the same
    direction, and whose neighbouring pixels differ little (J. Geiping et al., "Inverting gradients", NeurIPS 2020,
    arXiv:2003.14053).
    """

    about = (
        "The attacker sees the gradients of a training step on one image, as federated learning shares "
        "them, and no key. He descends on an image that gives the plain twin of the reader the same "
        "gradients. Gradients are as private as those of a plaintext network: do not share them."
    )
    advisory: ClassVar[bool] = True

    def references(self) -> tuple[Target, ...]:
        """Any target whose mask is right leaks alike; this one is known to be weak."""
        return (FixedXor(),)

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: PSNR of images descended on from gradients."""
        steps, count = scene.budget(150, 1000), 8 if scene.quick else 24
        reader = self.trained(target, scene, scene.train, scene.train_labels, 10)
        classes = int(scene.train_labels.max()) + 1
        twin = SmallReader(scene.train.shape[1], classes, keyed=False).to(scene.test.device)
        twin.load_state_dict(reader.state_dict())
        twin.eval()
        images, labels = scene.test[:count], scene.test_labels[:count]
        shown = self.sight(target, images, VICTIM)
        seen = []
        for index in range(count):
            one = slice(index, index + 1)
            loss = F.cross_entropy(reader(shown.ciphertext[one], shown.mask[one]), labels[one])
            parameters = [reader.stem.convolution.weight, *reader.body.parameters()]
            seen.append(torch.autograd.grad(loss, parameters))
        wanted = [torch.stack(each) for each in zip(*seen, strict=True)]
        return reconstruction(
            self,
            target,
            scene,
            matched(twin, wanted, labels, scene.mean_image, steps) * 255,
            f"gradients of one image and its class, {steps} steps",
            truth=images,
        )


def matched(twin: SmallReader, wanted: Sequence[Tensor], labels: Tensor, start: Tensor, steps: int) -> Tensor:
    """Images that give a plaintext reader such gradients, each by itself and all at a time.

    Args:
        twin: In evaluation mode.
        wanted: For the stem's kernel and each parameter of the body, the gradient under each image, (B, ...).
        labels: int64 (B,).
        start: The image that the descent begins at, uint8 (C, S, S).
        steps: Of Adam.

    Returns:
        float32 (B, C, S, S), 0..1.
    """
    body = dict(twin.body.named_parameters())
    constant = {name: value.detach() for name, value in body.items()}
    kernel = twin.stem.convolution.weight.detach()

    def loss(kernel: Tensor, parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        features = F.relu(twin.stem.norm(F.conv2d(image[None] - 0.5, kernel, padding=1)))
        return F.cross_entropy(functional_call(twin.body, parameters, features), label[None])

    gradients = vmap(grad(loss, argnums=(0, 1)), in_dims=(None, None, 0, 0))
    target = _flat(wanted)
    begin = (start.float() / 255).clamp(0.02, 0.98).logit()
    logits = begin.expand(len(labels), *start.shape).clone().requires_grad_()
    optimiser = torch.optim.Adam([logits], 0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        of_kernel, of_body = gradients(kernel, constant, logits.sigmoid(), labels)
        given = _flat([of_kernel, *(of_body[name] for name in body)])
        apart = 1 - F.cosine_similarity(given, target)
        optimiser.zero_grad()
        loss_of_each = apart + SMOOTHNESS * variation(logits.sigmoid())
        loss_of_each.sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return logits.detach().sigmoid()


def variation(images: Tensor) -> Tensor:
    """Mean absolute differences of neighbouring pixels, along rows and columns, of each image (B, C, H, W): (B,)."""
    return sum((images.diff(dim=axis).abs().mean((1, 2, 3)) for axis in (2, 3)), images.new_zeros(len(images)))


def _flat(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([each.flatten(1) for each in gradients], 1)
