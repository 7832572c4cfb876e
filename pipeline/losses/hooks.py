"""What a term's module says beside its function: see the room's docstring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pipeline.losses import TERMS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline.losses.outputs import Outputs

    Learned = Callable[[Outputs, Any, Mapping[str, Any]], nn.Module | None]
    Prepared = Callable[[Mapping[str, Tensor], Mapping[str, Any], int, str], tuple[nn.Module, dict[str, Any]]]


TARGET = "target"  # the role of the one dump that an ordinary term reads


def term_fields(name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """The cached fields that a term reads, by role."""
    reads = TERMS.read_part(name).READS
    if callable(reads):
        reads = reads(options)
    if isinstance(reads, Mapping):
        return dict(reads)
    return {} if reads is None else {TARGET: reads}


def find_mismatch(name: str, options: Mapping[str, Any], dump_options: Mapping[str, Any]) -> str | None:
    """Why a term cannot read a dump of its field, both with these options; None where it can."""
    reason: str | None = _call_hook(name, "find_mismatch", None, options, dump_options)
    return reason


def term_taps(name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The student's activations that a term asks for."""
    names: tuple[str, ...] = _call_hook(name, "taps", (), options)
    return names


def learned_factory(name: str) -> Learned | None:
    """The function that builds the module which a term trains beside the student; None where it trains none."""
    return getattr(_module(name), "build_learned", None)


def prepared_factory(name: str) -> Prepared | None:
    """The function that trains the module which a term needs from the first step on; None where it needs none."""
    return getattr(_module(name), "train_prepared", None)


def learns_from_peers(name: str) -> bool:
    """Whether a term needs other students beside its own."""
    return bool(getattr(TERMS.read_part(name), "PEERS", False))


def _call_hook(name: str, function: str, default: Any, *arguments: Any) -> Any:
    """The result of a function of the term's module; `default` where the module does not have it."""
    found = getattr(TERMS.read_part(name), function, None)
    return found(*arguments) if found else default


@cache  # it is asked in every step
def _module(name: str) -> ModuleType:
    return TERMS.import_part(name)
