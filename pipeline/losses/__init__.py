"""Loss terms, one a file; a recipe sums them.

A term is a pure function (outputs, target, *, options) -> scalar. Its module's `READS` names
the cached field that `target` is a batch of, or is None. The module may have

- `misfit(options, dump_options)`: why a dump of that field does not serve, or None;
- `taps(options)`: the student's activations that it asks for;
- `learned(outputs, target, options)`: a module that is trained beside the student, or None.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pipeline.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from pipeline.losses.step import Outputs

__all__ = ["TERMS", "field_of", "learned_of", "misfit_of", "taps_of"]

TERMS = Registry(
    "loss",
    {
        "ce": "pipeline.losses.ce:ce",
        "soft_targets": "pipeline.losses.soft_targets:soft_targets",
        "logits_mse": "pipeline.losses.logits_mse:logits_mse",
        "hint_mse": "pipeline.losses.hint_mse:hint_mse",
        "tsne": "pipeline.losses.tsne:tsne",
        "multichannel_bce": "pipeline.losses.multichannel_bce:multichannel_bce",
    },
)


def misfit_of(name: str, options: Mapping[str, Any], dump_options: Mapping[str, Any]) -> str | None:
    """Why a term cannot read a dump of its field, both with these options; None where it can."""
    reason: str | None = _asked(name, "misfit", None, options, dump_options)
    return reason


def taps_of(name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The student's activations that a term asks for."""
    names: tuple[str, ...] = _asked(name, "taps", (), options)
    return names


def learned_of(name: str) -> Callable[[Outputs, Any, Mapping[str, Any]], nn.Module | None] | None:
    """What makes the module that a term learns beside the student; None for a term that never does."""
    return getattr(_module(name), "learned", None)


def field_of(name: str) -> str | None:
    """The cached field that a term reads, or None."""
    reads: str | None = _module(name).READS
    return reads


def _asked(name: str, function: str, default: Any, *arguments: Any) -> Any:
    """What a function of a term's module says, where it has one."""
    found = getattr(_module(name), function, None)
    return found(*arguments) if found else default


def _module(name: str) -> ModuleType:
    return sys.modules[TERMS.function(name).__module__]
