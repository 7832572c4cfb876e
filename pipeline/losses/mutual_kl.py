"""Deep mutual learning: each of several students learns from the others (Zhang et al. 2018)."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional

from pipeline.losses.outputs import Outputs, Reduction, reduce_samples, widen

READS = None  # its teachers are trained beside it
PEERS = True


def mutual_kl(
    outputs: Outputs,
    target: None,
    *,
    temperature: PositiveFloat = 1.0,
    over_peers: Literal["mean", "sum"] = "mean",
    reduction: Reduction = "mean",
) -> Tensor:
    """1/(K - 1) sum_{l != k} KL(p_l || p_k), with p = softmax(logits / temperature); no gradient reaches the others.

    Args:
        outputs: the student's logits (B, C), and those of its peers (K - 1, B, C) as they are at this step.
        target: nothing.
        temperature: of both distributions.
        over_peers: how the divergences from the others are put together.
        reduction: over the samples.
    """
    assert outputs.peers is not None, "the engine hands them to every step of peers"
    student = outputs.log_softmax(temperature)  # (B, C)
    peers = functional.log_softmax(widen(outputs.peers.detach()) / temperature, dim=2)  # (K - 1, B, C)
    divergences = (peers.exp() * (peers - student)).sum(2)  # (K - 1, B)
    return reduce_samples(divergences.mean(0) if over_peers == "mean" else divergences.sum(0), reduction)
