"""Dumps: one field a file, each a function (teacher, samples, *, options) -> Field.

Its module also has `plan_arrays(parameters, classes)`, what a cache of the field must hold. It may have

- `check_options(**options)`, which raises ValueError for options that contradict each other;
- `count_rows(parameters, samples)`, the length of the second axis where that is not the number of samples;
- `select_plan_options(parameters)`, the options that decide the batch plan of its rows (`batch_size` among them);
- `DERIVED`, the manifest's parameters that the network decides;
- `list_taps(parameters)`, what it reads inside of the network;
- `NEEDS_HEAD`, True where it asks for channels, which only networks with a head have.
"""

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.registry import Registry
from pipeline.cache.blocks import ArrayForm

__all__ = [
    "FIELDS",
    "check_options",
    "count_rows",
    "list_derived_parameters",
    "list_taps",
    "needs_head",
    "plan_arrays",
    "select_plan_options",
]

FIELDS = Registry(
    "field",
    {
        "logits": "pipeline.dumps.logits:logits",
        "hints": "pipeline.dumps.hints:hints",
        "affinities": "pipeline.dumps.affinities:affinities",
        "multichannel": "pipeline.dumps.multichannel:multichannel",
    },
)


def plan_arrays(field: str, parameters: Mapping[str, Any], classes: int) -> Mapping[str, ArrayForm]:
    """The arrays that a field of these parameters has.

    Raises:
        InputError: a stranger's parameters, which are none of this field.
    """
    try:
        made: Mapping[str, ArrayForm] = _field_module(field).plan_arrays(parameters, classes)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise InputError(f"parameters of field {field}", expected="those of a dump", found=str(parameters)) from None
    return made


def list_derived_parameters(field: str) -> tuple[str, ...]:
    """The parameters in a manifest of this field that are no options: the network decides them."""
    return getattr(_field_module(field), "DERIVED", ())


def count_rows(field: str, parameters: Mapping[str, Any], samples: int) -> int:
    """Rows (samples, or batches) of a field of these parameters on so many samples."""
    count = getattr(_field_module(field), "count_rows", None)
    return count(parameters, samples) if count else samples


def select_plan_options(field: str, parameters: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What decides the batch plan that the rows of such a field are of; None: they are of samples."""
    plan = getattr(_field_module(field), "select_plan_options", None)
    return plan(parameters) if plan else None


def list_taps(field: str, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """What such a field reads inside of the network."""
    taps = getattr(_field_module(field), "list_taps", None)
    return taps(parameters) if taps else ()


def needs_head(field: str) -> bool:
    """Whether only a network with a head has what a field asks for."""
    return getattr(_field_module(field), "NEEDS_HEAD", False)


def check_options(field: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for options that contradict each other."""
    check = getattr(_field_module(field), "check_options", None)
    if check is not None:
        check(**options)


def _field_module(field: str) -> ModuleType:
    return sys.modules[FIELDS.import_function(field).__module__]
