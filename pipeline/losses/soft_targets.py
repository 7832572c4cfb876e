"""Knowledge distillation on temperature-softened outputs (Hinton, Vinyals, Dean 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional

from pipeline.losses.outputs import Outputs, Reduction, reduce_samples

READS = "logits"


def find_mismatch(options: Mapping[str, Any], dump: Mapping[str, Any]) -> str | None:
    """Why a dump does not serve: the tail of a top-k dump is computed at one temperature."""
    if dump.get("top_k") is not None and dump["temperature"] != options["temperature"]:
        return f"temperature: expected {dump['temperature']}, that of the dump's tail, found {options['temperature']}"
    return None


def soft_targets(
    outputs: Outputs,
    target: Tensor | Mapping[str, Tensor],
    *,
    temperature: PositiveFloat = 4.0,
    form: Literal["ce", "kl"] = "ce",
    scaled: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """H(P_T^tau, P_S^tau), or KL(P_T^tau || P_S^tau), with P^tau = softmax(a / tau).

    Of a top-k dump both sides are distributions over the same k + 1 parts: the teacher's k largest
    classes, and all others together.

    Args:
        outputs: the student's logits (B, C).
        target: the teacher's logits (B, C); or its `values` (B, k), `indices` (B, k) and `tail` (B, 1).
        temperature: tau.
        form: cross-entropy, or KL divergence; they differ by the teacher's entropy, a constant.
        scaled: multiply by tau^2, so that gradients keep their scale as tau grows.
        reduction: over the samples.
    """
    student = outputs.log_softmax(temperature)
    if isinstance(target, Mapping):
        indices = target["indices"].long()
        parts = torch.cat([target["values"] / temperature, target["tail"]], dim=1)  # (B, k + 1)
        others = student.scatter(1, indices, float("-inf")).logsumexp(1, keepdim=True)
        student = torch.cat([student.gather(1, indices), others], dim=1)  # (B, k + 1)
    else:
        parts = target / temperature
    teacher = functional.log_softmax(parts, dim=1)
    probabilities = teacher.exp()
    divergence = -(probabilities * student).sum(1)
    if form == "kl":
        divergence = divergence + (probabilities * teacher).sum(1)
    return reduce_samples(divergence, reduction) * (temperature**2 if scaled else 1.0)
