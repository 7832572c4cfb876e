"""Facts about cached affinities: how far neighbourhoods reach, and whether they know the classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cache import Cache
from pipeline.progress import track


def affinities(cache: Cache, labels: NDArray[np.int64] | None) -> dict[str, Any]:
    """Of the joint P of all batches: the neighbours that a point has in effect, and the mass within classes.

    A point has 2^H neighbours, H in bits being the entropy of its row of P, scaled to sum 1: near the
    perplexity, and not equal to it, since P is symmetrised. `same_class` is the sum of p_ij over pairs of
    one class, `same_class_by_chance` the share of such pairs.

    Args:
        cache: of field affinities.
        labels: the true classes of all training samples, or None where nobody knows them.
    """
    plans, batches = cache.manifest.arrays["sample_ids"].shape[:2]
    neighbours, same, chance = [], [], []
    parts = [(plan, batch) for plan in range(plans) for batch in range(batches)]
    for plan, batch in track(parts, "inspect", len(parts)):
        ids, p = _batch(cache, plan, batch)
        neighbours.append(_effective_neighbours(p))
        if labels is not None:
            alike = labels[ids][:, None] == labels[ids][None]
            same.append(p[alike].sum() / p.sum())
            chance.append((alike.sum() - len(ids)) / (len(ids) * (len(ids) - 1)))
    reached = np.concatenate(neighbours)
    facts: dict[str, Any] = {
        "plans": plans,
        "neighbours": {
            "mean": float(reached.mean()),
            "quartiles": [float(value) for value in np.quantile(reached, [0.25, 0.5, 0.75])],
        },
    }
    if same:
        facts |= {"same_class": float(np.mean(same)), "same_class_by_chance": float(np.mean(chance))}
    return facts


def _batch(cache: Cache, plan: int, batch: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Sample ids (n,) and P (n, n) of one batch."""
    ids = cache.rows([batch], plan, "sample_ids")[0]
    triangle = cache.rows([batch], plan, "p")[0].astype(np.float64)
    whole = len(ids)
    p = np.zeros((whole, whole))
    p[np.triu_indices(whole, 1)] = triangle / (whole * (whole - 1))
    real = int((ids >= 0).sum())
    return ids[:real], (p + p.T)[:real, :real]


def _effective_neighbours(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """2^H of each row, (n,)."""
    total = p.sum(1, keepdims=True)
    rows = np.divide(p, total, out=np.zeros_like(p), where=total > 0)
    logs = np.log2(rows, out=np.zeros_like(rows), where=rows > 0)
    neighbours: NDArray[np.float64] = 2.0 ** -(rows * logs).sum(1)
    return neighbours
