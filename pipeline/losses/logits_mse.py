"""Logits learning (Ba and Caruana 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from pipeline.losses.outputs import Outputs, Reduction, find_top_k_mismatch, reduce_samples, widen

READS = "logits"


def find_mismatch(options: Mapping[str, Any], dump: Mapping[str, Any]) -> str | None:
    """Why a dump does not serve: the squares need the logits of all classes."""
    return find_top_k_mismatch(dump)


def logits_mse(
    outputs: Outputs, target: Tensor, *, over_classes: Literal["mean", "sum"] = "mean", reduction: Reduction = "mean"
) -> Tensor:
    """|a_S - a_T|^2, averaged (or, as the paper writes it, summed) over the classes.

    Args:
        outputs: the student's logits (B, C).
        target: the teacher's logits (B, C).
        over_classes: how the C squares of a sample are put together.
        reduction: over the samples.
    """
    squares = (widen(outputs.logits) - target).square()
    return reduce_samples(squares.mean(1) if over_classes == "mean" else squares.sum(1), reduction)
