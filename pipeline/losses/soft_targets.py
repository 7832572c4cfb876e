"""Knowledge distillation on temperature-softened outputs (Hinton, Vinyals, Dean 2015)."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional

from pipeline.losses.step import Outputs, Reduction, reduced

READS = "logits"


def soft_targets(
    outputs: Outputs,
    target: Tensor,
    *,
    temperature: PositiveFloat = 4.0,
    form: Literal["ce", "kl"] = "ce",
    scaled: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """H(P_T^tau, P_S^tau), or KL(P_T^tau || P_S^tau), with P^tau = softmax(a / tau).

    Args:
        outputs: the student's logits (B, C).
        target: the teacher's logits (B, C).
        temperature: tau.
        form: cross-entropy, or KL divergence; they differ by the teacher's entropy, a constant.
        scaled: multiply by tau^2, so that gradients keep their scale as tau grows.
        reduction: over the samples.
    """
    teacher = functional.log_softmax(target / temperature, dim=1)
    probabilities = teacher.exp()
    divergence = -(probabilities * outputs.log_softmax(temperature)).sum(1)
    if form == "kl":
        divergence = divergence + (probabilities * teacher).sum(1)
    return reduced(divergence, reduction) * (temperature**2 if scaled else 1.0)
