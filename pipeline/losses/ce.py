"""Cross-entropy with the true labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from pipeline.losses.outputs import Outputs, Reduction

READS = None  # no cached field: the labels come with the data set


def ce(outputs: Outputs, target: None, *, reduction: Reduction = "mean") -> Tensor:
    """H(y, P_S) = -log softmax(a_S)_y, over the batch.

    Args:
        outputs: logits (B, C) and labels (B,).
        target: nothing.
        reduction: over the samples.
    """
    return functional.nll_loss(outputs.log_softmax(), outputs.labels, reduction=reduction)
