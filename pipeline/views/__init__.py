"""Augmentation policies, one a file: a view is a pure function of (seed, view, sample id).

A policy is a function (images, words, *, options) -> images, both (B, C, H, W) uint8, all of whose
chance lies in the random words (B, 8) that it is given. It computes with integers, or with operations that
round alike everywhere, so that a teacher on a GPU and a student on a CPU see the same pixels.
"""

from __future__ import annotations

from pipeline.base.registry import Registry

__all__ = ["POLICIES"]

POLICIES = Registry(
    "policy",
    {
        "none": "pipeline.views.none:none",
        "flip": "pipeline.views.flip:flip",
        "crop_flip": "pipeline.views.crop_flip:crop_flip",
        "random_resized_crop": "pipeline.views.random_resized_crop:random_resized_crop",
    },
)
