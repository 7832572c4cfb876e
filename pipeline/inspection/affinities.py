"""Facts about cached affinities: how far neighbourhoods reach, and whether they know the classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.progress import track
from pipeline.base.table import Table
from pipeline.cache import Cache
from pipeline.fields.batches import CachedBatches


def affinities(cache: Cache, labels: NDArray[np.int64] | None) -> dict[str, Any]:
    """Of the joint P of all batches: the neighbours that a point has in effect, and the mass within classes.

    A point has 2^H neighbours, H in bits being the entropy of its row of P, scaled to sum 1: near the
    perplexity, and not equal to it, since P is symmetrised. `same_class` is the sum of p_ij over pairs of
    one class, `same_class_by_chance` the share of such pairs.

    Args:
        cache: of field affinities.
        labels: the true classes of all training samples, or None where nobody knows them.
    """
    field = CachedBatches.from_cache(cache, torch.device("cpu"))
    plans, batches, _ = field.plans.shape
    neighbours, same, chance = [], [], []
    parts = [(plan, batch) for plan in range(plans) for batch in range(batches)]
    for plan, batch in track(parts, "inspect", len(parts)):
        ids = field.plans[plan, batch].numpy()
        ids = ids[ids >= 0]
        p = field.matrix(plan, batch, len(ids)).double().numpy()
        neighbours.append(_count_neighbours(p))
        if labels is not None and len(ids) > 1:
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


def describe(facts: dict[str, Any], classes: Sequence[str]) -> Iterator[str | Table]:  # noqa: ARG001 - of all as one
    """How far neighbourhoods reach, and how much of them lies within classes."""
    reached = facts["neighbours"]
    low, middle, high = reached["quartiles"]
    yield (
        f"neighbours of a point in effect: mean {reached['mean']:.2f}; "
        f"quartiles {low:.2f}, {middle:.2f}, {high:.2f}; plans: {facts['plans']}"
    )
    if "same_class" in facts:
        by_chance = f"{100 * facts['same_class_by_chance']:.1f} % of the pairs are"
        yield f"mass between samples of one class: {100 * facts['same_class']:.1f} % ({by_chance})"


def _count_neighbours(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """2^H of each row, (n,)."""
    total = p.sum(1, keepdims=True)
    rows = np.divide(p, total, out=np.zeros_like(p), where=total > 0)
    logs = np.log2(rows, out=np.zeros_like(rows), where=rows > 0)
    neighbours: NDArray[np.float64] = 2.0 ** -(rows * logs).sum(1)
    return neighbours
