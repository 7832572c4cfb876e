"""Dumps: one field a file, each a function (teacher, samples, *, options) -> Field.

Its module also has `arrays(parameters, classes)`, what a cache of the field must hold.
"""

import sys
from collections.abc import Mapping
from typing import Any

from pipeline.cache.blocks import ArrayPlan
from pipeline.registry import Registry

__all__ = ["FIELDS", "planned_arrays"]

FIELDS = Registry("field", {"logits": "pipeline.dumps.logits:logits"})


def planned_arrays(field: str, parameters: Mapping[str, Any], classes: int) -> Mapping[str, ArrayPlan]:
    """The arrays that a field of these parameters has, as its module's `arrays` says."""
    made: Mapping[str, ArrayPlan] = sys.modules[FIELDS.function(field).__module__].arrays(parameters, classes)
    return made
