"""Principal components by eigenvalues, where an SVD of every batch would be most of the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PIECE_ROWS = 8192


def of_batch(features: Array, dimensions: int) -> Array:
    """Each batch's points (b, n, d) on its own principal axes, (b, n, at most `dimensions`).

    From the Gram matrix X X^T = U L U^T of the centred points: the scores are U sqrt(L). A batch
    that has no more dimensions anyway keeps its distances exactly, unrotated.
    """
    if dimensions >= min(features.shape[1] - 1, features.shape[2]):
        return features
    centred = features - features.mean(1, keepdims=True)
    values, vectors = np.linalg.eigh(centred @ centred.transpose(0, 2, 1))  # rising
    kept: Array = vectors[:, :, -dimensions:] * np.sqrt(values[:, None, -dimensions:].clip(min=0))
    return kept


def of_all(gather: Callable[[NDArray[np.int64]], NDArray[Any]], rows: int, dimensions: int) -> Callable[[Array], Array]:
    """A function to the principal axes of all points: (..., d) -> (..., at most `dimensions`).

    Args:
        gather: the points (n, d) of some ids (n,).
        rows: their number.
        dimensions: of the result.
    """
    parts = [np.arange(start, min(start + PIECE_ROWS, rows)) for start in range(0, rows, PIECE_ROWS)]
    mean = sum(gather(ids).sum(0, dtype=np.float64) for ids in parts) / rows
    if dimensions >= len(mean):
        return lambda features: features
    covariance = np.zeros((len(mean), len(mean)))
    for ids in parts:
        centred = gather(ids) - mean
        covariance += centred.T @ centred
    axes = np.linalg.eigh(covariance)[1][:, -dimensions:]  # of the largest values
    return lambda features: (features - mean) @ axes
