"""The t-SNE regulariser: the student's neighbourhoods match the teacher's, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PlainValidator
from torch import Tensor

from pipeline.losses.outputs import Outputs

READS = "affinities"


def _parse_dof(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    if value != "infinity" and not number:
        raise ValueError(f"expected a number above 0, or infinity, found {value!r}")
    return float(value) if number else value


Dof = Annotated[float | Literal["infinity"], PlainValidator(_parse_dof)]


def taps(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the student's features are read."""
    return (options["tap"],)


def tsne(
    outputs: Outputs,
    target: Tensor,
    *,
    tap: str = "features",
    dof: Dof = "infinity",
    floor: Annotated[float, Field(ge=0, lt=1)] = 1e-12,
) -> Tensor:
    """KL(P || Q) = sum_ij p_ij log(p_ij / q_ij), summed over the pairs of a batch.

    q_ij = k_ij / sum_{k != l} k_kl, with k_ij = (1 + |y_i - y_j|^2 / dof)^(-(dof + 1) / 2), or
    exp(-|y_i - y_j|^2 / 2), its limit for an infinite dof; q_ii = 0.

    Args:
        outputs: the student's features y (n, ...) among its taps.
        target: the teacher's joint P (n, n): symmetric, zero diagonal, sum 1.
        tap: where the features are read.
        dof: degrees of freedom.
        floor: p and q of two different points are taken for at least this much (the classic code's 1e-12).
    """
    log_q = log_affinities(outputs.taps[tap].flatten(1), math.inf if dof == "infinity" else dof)
    apart = 1 - torch.eye(len(target), dtype=log_q.dtype, device=target.device)  # the diagonal is no pair
    p = target.to(log_q.dtype).clamp(min=floor) * apart
    if floor:
        return torch.xlogy(p, p).sum() - (p * log_q.clamp(min=math.log(floor))).sum()
    # Where p is zero the product's limit is zero, whatever log q is.
    return torch.xlogy(p, p).sum() - torch.where(p > 0, p * log_q, 0.0).sum()


def log_affinities(features: Tensor, dof: float) -> Tensor:
    """Log of q_ij (n, n) of features (n, d), in float32 or wider; the diagonal is the least value and has no meaning.

    By log1p and one log-sum-exp, so that neither large distances nor half precision overflow.
    """
    wide = features if features.dtype == torch.float64 else features.float()
    with torch.autocast(wide.device.type, enabled=False):
        centred = wide - wide.mean(0)  # near-duplicates far from the origin keep their distances
        norms = centred.square().sum(1)
        squares = torch.addmm(norms[:, None] + norms, centred, centred.T, alpha=-2).clamp(min=0)
        log_kernel = -squares / 2 if math.isinf(dof) else -(dof + 1) / 2 * torch.log1p(squares / dof)
        diagonal = torch.eye(len(wide), dtype=torch.bool, device=wide.device)
        log_kernel = log_kernel.masked_fill(diagonal, torch.finfo(wide.dtype).min)
        log_kernel = log_kernel - log_kernel.detach().amax()  # so that pairs far apart leave room for the sum's digits
        return log_kernel - torch.logsumexp(log_kernel.flatten(), 0)
