"""What a field's module says beside its function: see the room's docstring."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pipeline.base.errors import InputError
from pipeline.base.light_modules import LightModule
from pipeline.dumps import FIELDS

if TYPE_CHECKING:
    from pipeline.cache.blocks import ArrayForm


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


def _field_module(field: str) -> ModuleType | LightModule:
    return FIELDS.read_part(field)
