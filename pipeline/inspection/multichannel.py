"""Facts about cached binary labels: how much they say, and how often the largest class is the true one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.table import Table
from pipeline.cache import Cache
from pipeline.inspection.classes import count_choices, describe_choices, measure_agreement, walk_rows


def multichannel(cache: Cache, labels: NDArray[np.int64] | None) -> dict[str, Any]:
    """Of the labels in all views: each channel's share of ones and entropy, and agreement with the true classes.

    A channel is dead if it says the same of every sample. Its entropy is that of its share p of ones,
    -p log2 p - (1 - p) log2(1 - p): 1 bit at most. The class chosen is the one of the most ones, the lower
    of equals. Accuracies lie in [0, 1].

    Args:
        cache: of field multichannel.
        labels: the true classes (rows,), or None where nobody knows them.
    """
    manifest = cache.manifest
    classes, channels = len(manifest.dataset.classes), manifest.field.parameters["channels"]
    counts, choices = np.zeros((classes, channels), np.int64), []
    for view, ids in walk_rows(cache):
        bits = np.unpackbits(cache.rows(ids, view), axis=1, count=classes * channels).reshape(-1, classes, channels)
        counts += bits.sum(0, dtype=np.int64)
        choices.append(bits.sum(2, dtype=np.int64).argmax(1))
    choice = np.concatenate(choices).reshape(manifest.views.count, manifest.rows)
    facts = {**_count_channels(counts, choice.size), "chosen_per_class": count_choices(choice, classes)}
    return facts if labels is None else facts | measure_agreement(choice, labels, classes)


def describe(facts: dict[str, Any], classes: Sequence[str]) -> Iterator[str | Table]:
    """How many channels say nothing, how often the largest class is the true one, and one row a class."""
    entropy = facts["channel_entropy"]
    yield (
        f"channels: {len(facts['ones'][0])} a class; always 0: {facts['always_zero']}, "
        f"always 1: {facts['always_one']}; entropy of a channel: mean {entropy['mean']:.4f} bits"
    )
    columns = {
        "ones (%)": [f"{100 * share:.2f}" for share in facts["ones_per_class"]],
        "always 0": [str(count) for count in facts["always_zero_per_class"]],
        "always 1": [str(count) for count in facts["always_one_per_class"]],
        "entropy (bits)": [f"{each:.4f}" for each in entropy["per_class"]],
    }
    yield from describe_choices(facts, classes, columns)


def _count_channels(counts: NDArray[np.int64], rows: int) -> dict[str, Any]:
    """Facts about channels from their numbers of ones (classes, K) among so many rows."""
    ones = counts / rows
    entropy = _compute_entropy(ones)
    return {
        "ones": ones.tolist(),
        "ones_per_class": ones.mean(1).tolist(),
        "always_zero": int((counts == 0).sum()),
        "always_zero_per_class": (counts == 0).sum(1).tolist(),
        "always_one": int((counts == rows).sum()),
        "always_one_per_class": (counts == rows).sum(1).tolist(),
        "channel_entropy": {"mean": float(entropy.mean()), "per_class": entropy.mean(1).tolist(), "unit": "bits"},
    }


def _compute_entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    both = np.stack([shares, 1 - shares])
    logs = np.log2(both, out=np.zeros_like(both), where=both > 0)
    entropy: NDArray[np.float64] = -(both * logs).sum(0)
    return entropy
