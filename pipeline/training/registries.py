"""What a training may name: optimisers, learning-rate schedules, orders. Here, so that none of them is imported."""

from __future__ import annotations

from pipeline.base.registry import Registry

__all__ = ["LR_SCHEDULES", "OPTIMIZERS", "ORDERS"]

OPTIMIZERS = Registry(
    "optimizer",
    {name: f"pipeline.training.optimizers:{name}" for name in ("sgd", "adam", "adamw")},
)
LR_SCHEDULES = Registry(
    "learning-rate schedule",
    {name: f"pipeline.training.optimizers:{name}" for name in ("constant", "step", "cosine", "plateau")},
)
ORDERS = Registry(
    "order",
    {
        "shuffled": "pipeline.training.sample_order:shuffle_samples",
        "blocks": "pipeline.training.sample_order:shuffle_blocks",
    },
)
