"""A discriminator of two networks by their logits, trained once on what is cached of both."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from pipeline.base.errors import InputError
from pipeline.base.progress import track
from pipeline.base.seeds import derive_seed, fork_seeded_rng
from pipeline.losses.discriminator_options import DiscriminatorOptions


class Discriminator(nn.Module):
    """Logits (n, C) -> (n,): the log odds that they are the student's. It scales its inputs as its training rows were.

    Args:
        rows: (n, C) that it is trained on.
        widths: hidden layers.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, rows: Tensor, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", rows.mean(0))
        self.register_buffer("std", rows.std(0).clamp(min=1e-6))
        sizes = (rows.shape[1], *widths)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, logits: Tensor) -> Tensor:
        """The log odds (n,)."""
        scores: Tensor = self.layers((logits - self.mean) / self.std)
        return scores.squeeze(1)


def train_discriminator(
    teacher: Tensor, student: Tensor, options: DiscriminatorOptions, *, seed: int, what: str
) -> tuple[Discriminator, dict[str, Any]]:
    """Train a network to tell a student's logits (label 1) from its teacher's (label 0).

    Args:
        teacher, student: (views, samples, C) of the same samples, on the device where it is trained.
        options: its shape and training.
        seed: of its initial weights, of the samples that are held out and of the order.
        what: names it in messages.

    Returns:
        The discriminator, and `discriminator_accuracy` on the logits of the `held_out` samples.

    Raises:
        InputError: too few samples to hold some out, or it tells them apart worse than was asked for.
    """
    samples, device = teacher.shape[1], teacher.device
    kept = round(samples * options.held_out)
    if not 0 < kept < samples:
        raise InputError(
            f"{what}: held_out", expected="a share that leaves samples on both sides", found=f"{kept} of {samples}"
        )
    order = torch.Generator().manual_seed(derive_seed(seed, "held-out"))
    shuffled = torch.randperm(samples, generator=order).to(device)
    rows, labels = _label_rows(teacher, student, shuffled[kept:])
    with fork_seeded_rng(derive_seed(seed, "discriminator"), device):
        network = Discriminator(rows, options.widths).to(device)
    _train(network, rows, labels, options, order)
    rows, labels = _label_rows(teacher, student, shuffled[:kept])
    with torch.no_grad():
        accuracy = float(((network(rows) > 0) == labels.bool()).double().mean())
    if accuracy < options.least_accuracy:
        raise InputError(
            f"{what}: discriminator",
            expected=f"to tell the student from its teacher on {options.least_accuracy:.0%} of the held-out logits",
            found=f"{accuracy:.1%}",
            fix="train it longer or wider (`discriminator: {epochs, widths}`), or go on all the same with "
            "`discriminator: {least_accuracy: 0}`",
        )
    return network, {"discriminator_accuracy": accuracy, "held_out": kept}


def _label_rows(teacher: Tensor, student: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (n, C) of both networks for these samples in every view, with labels (n,): 0 teacher, 1 student."""
    both = [values[:, samples].flatten(0, 1).float() for values in (teacher, student)]
    labels = [torch.full((len(rows),), float(label), device=rows.device) for label, rows in enumerate(both)]
    return torch.cat(both), torch.cat(labels)


def _train(
    network: Discriminator, rows: Tensor, labels: Tensor, options: DiscriminatorOptions, order: torch.Generator
) -> None:
    optimizer = Adam(network.parameters(), lr=options.lr)
    for _ in track(range(options.epochs), "discriminator", options.epochs):
        for part in torch.split(torch.randperm(len(rows), generator=order).to(rows.device), options.batch_size):
            optimizer.zero_grad(set_to_none=True)
            loss = functional.binary_cross_entropy_with_logits(network(rows[part]), labels[part])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
