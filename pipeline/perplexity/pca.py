"""Principal components by eigenvalues, where an SVD of every batch would be most of the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.perplexity.blas_threads import limit_to_one_thread

Array = NDArray[np.float64]

PIECE_BYTES = 64 << 20  # of points in memory at a time
MAX_FEATURES = 16_384  # features whose covariance (2 GB) is worth having


def project_batch(features: Array, dimensions: int) -> Array:
    """Each batch's points (b, n, d) on its own principal axes, (b, n, at most `dimensions`).

    From the Gram matrix X X^T = U L U^T of the centred points: the scores are U sqrt(L). A batch
    that has no more dimensions anyway keeps its distances exactly, unrotated.
    """
    if dimensions >= min(features.shape[1] - 1, features.shape[2]):
        return features
    centred = features - features.mean(1, keepdims=True)
    with limit_to_one_thread():
        values, vectors = np.linalg.eigh(centred @ centred.transpose(0, 2, 1))  # rising
    kept: Array = vectors[:, :, -dimensions:] * np.sqrt(values[:, None, -dimensions:].clip(min=0))
    return kept


def fit_projection(
    gather: Callable[[NDArray[np.int64]], NDArray[Any]], rows: int, dimensions: int
) -> Callable[[Array], Array]:
    """A function to the principal axes of all points: (..., d) -> (..., at most `dimensions`).

    Args:
        gather: the points (n, d) of some ids (n,).
        rows: their number.
        dimensions: of the result.

    Raises:
        InputError: more features than a covariance is worth having of.
    """
    width = gather(np.zeros(1, np.int64)).shape[1]
    if dimensions >= width:
        return lambda features: features
    if width > MAX_FEATURES:
        raise InputError(
            "pca_over: all",
            expected=f"at most {MAX_FEATURES:,} features",
            found=f"{width:,}",
            fix="use pca_over: batch",
        )
    piece = max(1, PIECE_BYTES // (8 * width))
    parts = [np.arange(start, min(start + piece, rows)) for start in range(0, rows, piece)]
    mean = sum(gather(ids).sum(0, dtype=np.float64) for ids in parts) / rows
    covariance = np.zeros((width, width))
    with limit_to_one_thread():
        for ids in parts:
            centred = gather(ids) - mean
            covariance += centred.T @ centred
        axes = np.linalg.eigh(covariance)[1][:, -dimensions:]  # of the largest values

    def project(features: Array) -> Array:
        with limit_to_one_thread():
            made: Array = (features - mean) @ axes
        return made

    return project
