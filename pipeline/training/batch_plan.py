"""Batch plans: which samples form which batch, stored with the field that is computed for them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.views.counter_random import stream_words

Last = Literal["drop", "keep", "wrap"]
PADDING = -1  # fills up a short batch
STREAM = 0xFFFFFFFE  # of the random words that shuffle: far beyond those of the views' policies


def count_batches(samples: int, batch_size: int, last: Last) -> int:
    """Batches of one plan."""
    return samples // batch_size if last == "drop" else -(-samples // batch_size)


def make_batch_plan(
    samples: int, batch_size: int, *, plans: int = 1, shuffle: bool = True, seed: int = 0, last: Last = "drop"
) -> NDArray[np.int64]:
    """Sample ids (plans, batches, batch_size); a pure function of its arguments, on every machine.

    Args:
        samples: their number; the ids are [0, samples).
        batch_size: samples of a batch, all different.
        plans: epoch e follows plan e mod plans.
        shuffle: each plan in an order of its own; or all in file order.
        seed: of the shuffles, in [0, 2^64).
        last: what becomes of the samples that fill no batch. "drop": each plan leaves its last ones
            out. "keep": a short batch, filled up with -1. "wrap": filled up with the plan's first ones.

    Raises:
        InputError: fewer samples than one batch needs.
    """
    if samples < batch_size and last != "keep":
        expected = f"at most the {samples} samples"
        raise InputError("batch_size", expected=expected, found=str(batch_size), fix="lower it or set last: keep")
    batches = count_batches(samples, batch_size, last)
    made: NDArray[np.int64] = np.full((plans, batches * batch_size), PADDING, np.int64)
    for number in range(plans):
        order = _shuffle_ids(samples, number, seed) if shuffle else np.arange(samples)
        filled = np.concatenate([order, order[: batches * batch_size - samples]]) if last == "wrap" else order
        count = min(len(filled), made.shape[1])
        made[number, :count] = filled[:count]
    return made.reshape(plans, batches, batch_size)


def _shuffle_ids(samples: int, number: int, seed: int) -> NDArray[np.int64]:
    """Sample ids in a random order: sorted by 64 random bits each."""
    ids = torch.arange(samples)
    words = stream_words(seed, torch.full_like(ids, number), ids, STREAM).numpy().astype(np.uint64)
    return np.argsort(words[:, 0] << np.uint64(32) | words[:, 1], kind="stable")
