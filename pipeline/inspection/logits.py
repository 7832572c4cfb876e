"""Facts about cached logits: how sure the teacher is, and how often it is right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.table import Table
from pipeline.cache import Cache
from pipeline.inspection.classes import count_choices, describe_choices, measure_agreement, walk_rows


def logits(cache: Cache, labels: NDArray[np.int64] | None) -> dict[str, Any]:
    """Of the logits in all views: the mean and the quartiles of the entropy, and agreement with the labels.

    The entropy is that of softmax(a), in nats; of a top-k cache that of its k + 1 parts at the
    temperature of its tail. Accuracies lie in [0, 1].

    Args:
        cache: of field logits.
        labels: the true classes (rows,), or None where nobody knows them.
    """
    manifest = cache.manifest
    entropies, choices = [], []
    for view, ids in walk_rows(cache):
        entropy, choice = _compute_entropy(cache, ids, view)
        entropies.append(entropy)
        choices.append(choice)
    entropy, choice = np.concatenate(entropies), np.concatenate(choices).reshape(manifest.views.count, manifest.rows)
    classes = len(manifest.dataset.classes)
    facts: dict[str, Any] = {
        "entropy": {
            "mean": float(entropy.mean()),
            "quartiles": [float(value) for value in np.quantile(entropy, [0.25, 0.5, 0.75])],
            "unit": "nats",
        },
        "chosen_per_class": count_choices(choice, classes),
    }
    return facts if labels is None else facts | measure_agreement(choice, labels, classes)


def describe(facts: dict[str, Any], classes: Sequence[str]) -> Iterator[str | Table]:
    """How sure the teacher is, how often it is right, and one row a class."""
    low, middle, high = facts["entropy"]["quartiles"]
    yield f"entropy: mean {facts['entropy']['mean']:.4f} nats; quartiles {low:.4f}, {middle:.4f}, {high:.4f}"
    yield from describe_choices(facts, classes, {})


def _compute_entropy(cache: Cache, ids: NDArray[np.int64], view: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Entropy (n,) and most likely class (n,) of some rows."""
    if "logits" in cache.manifest.arrays:
        scores = cache.rows(ids, view).astype(np.float64)
        choice = scores.argmax(1)
    else:
        values = cache.rows(ids, view, "values").astype(np.float64)
        choice = cache.rows(ids, view, "indices")[:, 0].astype(np.int64)
        temperature = cache.manifest.field.parameters["temperature"]
        scores = np.concatenate([values / temperature, cache.rows(ids, view, "tail")], axis=1)
    shifted = scores - scores.max(1, keepdims=True)
    total = np.exp(shifted).sum(1, keepdims=True)
    logs = shifted - np.log(total)
    return -(np.exp(logs) * logs).sum(1), choice
