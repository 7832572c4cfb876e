"""The t-SNE regulariser: the student's neighbourhoods match the teacher's, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PlainValidator
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.losses.outputs import Outputs

READS = "affinities"
LEAST_LOG = -80.0  # of a pair, beside the nearest: it adds nothing to a sum, and below it exp is ten times as slow


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
    features = outputs.taps[tap].flatten(1)
    wide = features if features.dtype == torch.float64 else features.float()
    divergence: Tensor = _Divergence.apply(wide, target.to(wide.dtype), _as_number(dof), floor)[0]
    return divergence


class _Divergence(torch.autograd.Function):
    """The loss with its gradient, in half of the time that autograd takes for it; it has no second derivative.

    With s_ij = |y_i - y_j|^2, w_ij = p_ij where q_ij is above the floor, else 0, and W = sum_ij w_ij:

        dKL / ds_ij = (w_ij - q_ij W) c_ij,   c_ij = 1/2, or (dof + 1) / (2 (dof + s_ij))
        dKL / dy_i = 2 sum_j (dKL / ds_ij + dKL / ds_ji) (y_i - y_j)
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, p: Tensor, dof: float, floor: float) -> tuple[Tensor, Tensor, Tensor]:
        """KL(P || Q), the centred features (n, d), and dKL / ds_ij + dKL / ds_ji (n, n)."""
        with torch.autocast(features.device.type, enabled=False):
            centred, squares = _measure_squares(features)
            log_q, q = _normalise(_log_kernel(squares, dof))
            p = p.clamp(min=floor)
            p.diagonal().zero_()  # no pair
            entropy = (p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum()  # 0 log 0 = 0
            if floor:
                above = log_q.clamp(min=math.log(floor))
                divergence = entropy - (p * above).sum()
                free = p * (above == log_q)
            else:  # where p is zero the product's limit is zero, whatever log q is
                divergence = entropy - torch.where(p > 0, p * log_q, 0.0).sum()
                free = p
            slopes = torch.addcmul(free, q, free.sum(), value=-1)
            slopes = slopes / 2 if math.isinf(dof) else slopes * ((dof + 1) / 2) / (squares + dof)
            return divergence, centred, slopes + slopes.T

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        """Keep what the gradient is made of."""
        del inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """That of the features."""
        centred, slopes = ctx.saved_tensors
        with torch.autocast(centred.device.type, enabled=False):
            pulls = torch.addmm(slopes.sum(1, keepdim=True) * centred, slopes, centred, alpha=-1)
            return 2 * gradient * pulls, None, None, None


def log_affinities(features: Tensor, dof: float) -> Tensor:
    """Log of q_ij (n, n) of features (n, d), in float32 or wider; the diagonal is the least value and has no meaning.

    By log1p and one log-sum-exp, so that neither large distances nor half precision overflow.
    """
    wide = features if features.dtype == torch.float64 else features.float()
    with torch.autocast(wide.device.type, enabled=False):
        return _normalise(_log_kernel(_measure_squares(wide)[1], dof))[0]


def _as_number(dof: Dof) -> float:
    return math.inf if dof == "infinity" else dof


def _measure_squares(features: Tensor) -> tuple[Tensor, Tensor]:
    """The features (n, d) around their mean, and |y_i - y_j|^2 (n, n)."""
    centred = features - features.mean(0)  # near-duplicates far from the origin keep their distances
    products = centred @ centred.T
    norms = products.diagonal()
    return centred, torch.add(norms[:, None] + norms, products, alpha=-2).clamp(min=0)


def _log_kernel(squares: Tensor, dof: float) -> Tensor:
    """Log k_ij (n, n); the least value on the diagonal, which is no pair."""
    log_kernel = -squares / 2 if math.isinf(dof) else -(dof + 1) / 2 * torch.log1p(squares / dof)
    log_kernel.diagonal().fill_(torch.finfo(squares.dtype).min)
    return log_kernel


def _normalise(log_kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Log q_ij and q_ij (n, n)."""
    log_kernel = log_kernel - log_kernel.amax()  # so that pairs far apart leave room for the sum's digits
    kernel = log_kernel.clamp(min=LEAST_LOG).exp()
    total = kernel.sum()
    return log_kernel - total.log(), kernel / total
