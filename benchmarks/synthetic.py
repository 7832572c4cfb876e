"""What a synthetic cache says of itself: nobody's knowledge of no data."""

from __future__ import annotations

from typing import Any

BATCH = 512


def describe_cache(rows: int, classes: int, views: int = 1) -> dict[str, Any]:
    """The entries of a manifest that a writer is given.

    Args:
        rows: samples, all of them for training.
        classes: their number.
        views: of each sample.
    """
    digest = "ab" * 32
    return {
        "field": {"name": "logits", "parameters": {}},
        "teacher": {
            "name": "t", "architecture": {"name": "mlp"}, "seed": None, "weights_sha256": digest,
            "test_accuracy": None, "test_accuracy_per_class": [None] * classes,
        },
        "dataset": {
            "name": "d", "fingerprint": digest, "samples": rows, "shape": [1, 8, 8], "bounds": [rows, rows],
            "classes": [str(label) for label in range(classes)],
        },
        "views": {"policy": "flip" if views > 1 else "none", "count": views, "seed": 0, "parameters": {}},
        "batch": BATCH,
    }  # fmt: skip
