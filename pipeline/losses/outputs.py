"""The student's outputs of one step, which every loss term is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Reduction = Literal["mean", "sum"]  # over the samples of a batch


@dataclass(frozen=True)
class Outputs:
    """A student's outputs for one batch, and what several terms compute from them.

    Attributes:
        logits: (B, C), pre-softmax.
        labels: (B,) int64.
        taps: by name, the activations (B, ...) that the recipe's terms ask for.
        module: the one that this term has learned beside the student (a regressor), or was given
            before it (a discriminator).
        peers: logits (K - 1, B, C) of its peers, where a term learns from them.
        modules: those of all terms, by name.
    """

    logits: Tensor
    labels: Tensor
    taps: Mapping[str, Tensor] = field(default_factory=dict)
    module: nn.Module | None = None
    peers: Tensor | None = None
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    _log_softmax: dict[float, Tensor] = field(default_factory=dict, repr=False)

    def log_softmax(self, temperature: float = 1.0) -> Tensor:
        """Log softmax(logits / temperature), (B, C); terms of one temperature share it."""
        if temperature not in self._log_softmax:
            logits = widen(self.logits)
            self._log_softmax[temperature] = functional.log_softmax(
                logits if temperature == 1 else logits / temperature, dim=1
            )
        return self._log_softmax[temperature]


def widen(values: Tensor) -> Tensor:
    """The values in float32 or wider: squares and sums of half precision would overflow."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def apply_module(module: nn.Module, values: Tensor) -> Tensor:
    """The output of a module beside the student, computed in float32 or wider, under autocast too."""
    with torch.autocast(values.device.type, enabled=False):
        made: Tensor = module(widen(values))
        return made


def find_top_k_mismatch(dump: Mapping[str, Any]) -> str | None:
    """Why a dump of logits does not serve a term that needs every class's."""
    return "needs all logits, found a dump with top_k" if dump.get("top_k") is not None else None


def reduce_samples(per_sample: Tensor, reduction: Reduction) -> Tensor:
    """Per-sample losses (B,) as one number."""
    return per_sample.mean() if reduction == "mean" else per_sample.sum()
