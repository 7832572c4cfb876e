"""Architectures: one a file, each a function (shape, classes, *, options) -> module."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.models.network import Network
from pipeline.registry import Registry

__all__ = ["MODELS", "Network", "build"]


def _elsewhere(name: str) -> Callable[..., Any] | None:
    """`torchvision:NAME`, `timm:NAME`, or the user's own `package.module:function`."""
    module, colon, attribute = name.partition(":")
    if not colon:
        return None
    if module in ("torchvision", "timm"):
        named: Callable[[str], Callable[..., Any]] = importlib.import_module(f"pipeline.models.{module}_model").named
        return named(attribute)
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot import model {name!r}: {error}; expected package.module:function") from None
    return function


MODELS = Registry(
    "model",
    {
        "mlp": "pipeline.models.mlp:mlp",
        "cnn": "pipeline.models.cnn:cnn",
        "nin": "pipeline.models.nin:nin",
        "vgg_guided": "pipeline.models.vgg_guided:vgg_guided",
        "shallow_conv": "pipeline.models.shallow_conv:shallow_conv",
    },
    _elsewhere,
)


def build(model: Mapping[str, Any], shape: tuple[int, int, int], classes: int, *, files: bool = True) -> Network:
    """A network with fresh weights, drawn from torch's global generator (seed it first).

    Args:
        model: `name`, the input scaling `mean` and `std` (per channel, or None), and the
            options of that architecture.
        shape: (C, H, W) of the images.
        classes: outputs.
        files: read the weight files that options name; False when the weights come from
            elsewhere anyway and the files need not be there.
    """
    options = {key: value for key, value in model.items() if key not in ("name", "mean", "std")}
    if not files:
        options = {key: value for key, value in options.items() if key not in ("weights", "new_head")}
    body = MODELS.function(model["name"])(shape, classes, **options)
    return Network(body, model.get("mean"), model.get("std"))
