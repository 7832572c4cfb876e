"""Dumps: one field a file, each a function (teacher, samples, *, options) -> Field.

Its module also has `arrays(parameters, classes)`, what a cache of the field must hold. It may have
`check(**options)`, which raises ValueError for options that contradict each other; `DERIVED`, the
manifest's parameters that the network decides; and `rows(parameters, samples)`, the length of the second
axis where that is not the number of samples.
"""

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pipeline.cache.blocks import ArrayForm
from pipeline.registry import Registry

__all__ = ["FIELDS", "check_options", "derived_parameters", "planned_arrays", "planned_rows"]

FIELDS = Registry("field", {"logits": "pipeline.dumps.logits:logits"})


def planned_arrays(field: str, parameters: Mapping[str, Any], classes: int) -> Mapping[str, ArrayForm]:
    """The arrays that a field of these parameters has."""
    made: Mapping[str, ArrayForm] = _module(field).arrays(parameters, classes)
    return made


def derived_parameters(field: str) -> tuple[str, ...]:
    """The parameters in a manifest of this field that are no options: the network decides them."""
    return getattr(_module(field), "DERIVED", ())


def planned_rows(field: str, parameters: Mapping[str, Any], samples: int) -> int:
    """Rows (samples, or batches) of a field of these parameters on so many samples."""
    rows = getattr(_module(field), "rows", None)
    return rows(parameters, samples) if rows else samples


def check_options(field: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for options that contradict each other."""
    check = getattr(_module(field), "check", None)
    if check is not None:
        check(**options)


def _module(field: str) -> ModuleType:
    return sys.modules[FIELDS.function(field).__module__]
