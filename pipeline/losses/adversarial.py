"""Adversarial distillation: the student's logits are to pass for its teacher's (METHODS: adversarial distillation)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from pipeline.losses.discriminator import train_discriminator
from pipeline.losses.discriminator_options import DiscriminatorOptions
from pipeline.losses.outputs import Outputs, Reduction, apply_module, find_top_k_mismatch, reduce_samples

READS = {"teacher": "logits", "initial": "logits"}  # once, before the student's first step


def find_mismatch(options: Mapping[str, Any], dump: Mapping[str, Any]) -> str | None:
    """Why a dump does not serve: the discriminator reads the logits of all classes."""
    return find_top_k_mismatch(dump)


def train_prepared(
    rows: Mapping[str, Tensor], options: Mapping[str, Any], seed: int, what: str
) -> tuple[nn.Module, dict[str, Any]]:
    """The discriminator of the teacher's logits and the initial student's."""
    return train_discriminator(rows["teacher"], rows["initial"], options["discriminator"], seed=seed, what=what)


def adversarial(
    outputs: Outputs,
    target: None,
    *,
    form: Literal["fool", "maximise"] = "fool",
    discriminator: DiscriminatorOptions = DiscriminatorOptions(),  # noqa: B008 - frozen
    reduction: Reduction = "mean",
) -> Tensor:
    """How far the student's logits a_S are from passing for a teacher's, by a frozen discriminator.

    With D(a) the probability that a is the student's: `fool` is H(0, D(a_S)) = -log(1 - D(a_S)), which is
    bounded below; `maximise` is -H(1, D(a_S)) = log D(a_S), the loss of being recognised, maximised as the
    source writes it: unbounded, the student may run to the teacher's side without limit.

    Args:
        outputs: the student's logits (B, C), and the discriminator beside it.
        target: nothing: the cached logits of both have trained the discriminator before.
        form: which of the two.
        discriminator: its shape and training.
        reduction: over the samples.
    """
    assert outputs.module is not None, "prepared before the first step"
    score = apply_module(outputs.module, outputs.logits)  # (B,): log D / (1 - D)
    # logsigmoid, since softplus is cut to a straight line above 20.
    return reduce_samples(-functional.logsigmoid(-score) if form == "fool" else functional.logsigmoid(score), reduction)
