"""Loss terms, one a file; a recipe sums them.

A term is a pure function (outputs, target, *, options) -> scalar. Its module's `READS` names
the cached field that `target` is a batch of, or is None, or (of a term that reads several, or
another one by its options) is a mapping from a role to a field, or a function of the options.
The module may have

- `find_mismatch(options, dump_options)`: why a dump of that field does not serve, or None;
- `taps(options)`: the student's activations that it asks for;
- `build_learned(outputs, target, options)`: a module that is trained beside the student, or None;
- `train_prepared(rows, options, seed, what)`: a module that is trained before the student, on all
  rows of what it reads (by role), and stays as it is; with numbers for the student's metrics.
  Such a term's target is None: it reads nothing while the student trains;
- `PEERS = True`: it learns from the other students of its cohort (`outputs.peers`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pipeline.base.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline.losses.outputs import Outputs

    Learned = Callable[[Outputs, Any, Mapping[str, Any]], nn.Module | None]
    Prepared = Callable[[Mapping[str, Tensor], Mapping[str, Any], int, str], tuple[nn.Module, dict[str, Any]]]

__all__ = [
    "TARGET",
    "TERMS",
    "find_mismatch",
    "learned_factory",
    "learns_from_peers",
    "prepared_factory",
    "term_fields",
    "term_taps",
]

TARGET = "target"  # the role of the one dump that an ordinary term reads

TERMS = Registry(
    "loss",
    {
        "ce": "pipeline.losses.ce:ce",
        "soft_targets": "pipeline.losses.soft_targets:soft_targets",
        "logits_mse": "pipeline.losses.logits_mse:logits_mse",
        "probe_rmse": "pipeline.losses.probe_rmse:probe_rmse",
        "hint_mse": "pipeline.losses.hint_mse:hint_mse",
        "tsne": "pipeline.losses.tsne:tsne",
        "multichannel_bce": "pipeline.losses.multichannel_bce:multichannel_bce",
        "adversarial": "pipeline.losses.adversarial:adversarial",
        "mutual_kl": "pipeline.losses.mutual_kl:mutual_kl",
    },
)


def term_fields(name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """The cached fields that a term reads, by role."""
    reads = _module(name).READS
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
    return bool(getattr(_module(name), "PEERS", False))


def _call_hook(name: str, function: str, default: Any, *arguments: Any) -> Any:
    """The result of a function of the term's module; `default` where the module does not have it."""
    found = getattr(_module(name), function, None)
    return found(*arguments) if found else default


@cache  # it is asked in every step
def _module(name: str) -> ModuleType:
    return sys.modules[TERMS.import_function(name).__module__]
