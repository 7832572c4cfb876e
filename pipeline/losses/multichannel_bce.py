"""Multi-channel binary labels: each of a student's channels learns the teacher's bit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.base.errors import InputError
from pipeline.losses.outputs import Outputs, Reduction, reduce_samples, widen
from pipeline.models.heads import CHANNELS

READS = "multichannel"


def taps(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The student's channel scores."""
    return (CHANNELS,)


def multichannel_bce(
    outputs: Outputs, target: Tensor, *, over_channels: Literal["mean", "sum"] = "mean", reduction: Reduction = "mean"
) -> Tensor:
    """-sum_j b_j log sigmoid(s_j) + (1 - b_j) log(1 - sigmoid(s_j)), averaged (or summed) over the C * K channels j.

    Args:
        outputs: the student's channel scores s (B, C, K), before the sigmoid, among its taps.
        target: the teacher's bits b, (B, ceil(C * K / 8)) uint8, packed class by class.
        over_channels: how the C * K cross-entropies of a sample are put together.
        reduction: over the samples.

    Raises:
        InputError: a student without channels, or with another number of them than the teacher.
    """
    scores = _channel_scores(outputs).flatten(1)  # (B, C * K)
    bits = unpack_bits(target, scores.shape[1], scores.dtype)
    losses = functional.binary_cross_entropy_with_logits(scores, bits, reduction="none")
    return reduce_samples(losses.mean(1) if over_channels == "mean" else losses.sum(1), reduction)


def unpack_bits(packed: Tensor, count: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """The first `count` bits (B, count) of rows (B, bytes) uint8, highest bit first, as zeros and ones.

    Raises:
        InputError: the rows are not of the bytes that so many bits take.
    """
    if packed.shape[1] != -(-count // 8):
        raise InputError(
            "loss multichannel_bce",
            expected=f"a student with as many channels as its teacher: labels of {packed.shape[1]} bytes a sample",
            found=f"{count} channels, which take {-(-count // 8)}",
            fix="give the student `head: {channel_outputs: {channels: K}}` with the dump's K",
        )
    return functional.embedding(packed.int(), _bit_table(packed.device, dtype)).flatten(1)[:, :count]


@cache
def _bit_table(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The bits (256, 8) of every byte: one look-up is faster than shifts and masks of a whole batch."""
    places = torch.arange(7, -1, -1, device=device)
    return ((torch.arange(256, device=device)[:, None] >> places) & 1).to(dtype)


def _channel_scores(outputs: Outputs) -> Tensor:
    """The channel scores."""
    if CHANNELS not in outputs.taps:
        raise InputError(
            "loss multichannel_bce",
            expected="a student with channels",
            found="none",
            fix="give it `head: {channel_outputs: {channels: K}}`",
        )
    return widen(outputs.taps[CHANNELS])
