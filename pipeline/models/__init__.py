"""Architectures: one a file, each a function (shape, classes, *, options) -> module."""

from pipeline.base.registry import Registry
from pipeline.models.external import find_external_model
from pipeline.models.library_names import outline_library_model

__all__ = ["MODELS"]

MODELS = Registry(
    "model",
    {
        "mlp": "pipeline.models.mlp:mlp",
        "cnn": "pipeline.models.cnn:cnn",
        "nin": "pipeline.models.nin:nin",
        "vgg_guided": "pipeline.models.vgg_guided:vgg_guided",
        "shallow_conv": "pipeline.models.shallow_conv:shallow_conv",
    },
    find_external_model,
    outline_library_model,
)
