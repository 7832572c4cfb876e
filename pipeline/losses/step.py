"""What every loss term is given: the student's outputs of one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

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
        learned: by term, what it learns beside the student (a regressor), where it does.
    """

    logits: Tensor
    labels: Tensor
    taps: Mapping[str, Tensor] = field(default_factory=dict)
    learned: Mapping[str, nn.Module] = field(default_factory=dict)
    _log_softmax: dict[float, Tensor] = field(default_factory=dict, repr=False)

    def log_softmax(self, temperature: float = 1.0) -> Tensor:
        """Log softmax(logits / temperature), (B, C); terms of one temperature share it."""
        if temperature not in self._log_softmax:
            self._log_softmax[temperature] = functional.log_softmax(self.logits / temperature, dim=1)
        return self._log_softmax[temperature]


def reduced(per_sample: Tensor, reduction: Reduction) -> Tensor:
    """Per-sample losses (B,) as one number."""
    return per_sample.mean() if reduction == "mean" else per_sample.sum()
