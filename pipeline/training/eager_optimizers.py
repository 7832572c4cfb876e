"""torch's optimisers, as they are without `torch.compile`: its own import the compiler, a second, when they begin."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer

__all__ = ["SGD", "Adam", "AdamW"]

Kind = TypeVar("Kind", bound=Optimizer)

# Each is wrapped, so that a compiler leaves it alone; nothing here compiles an optimiser.
WRAPPED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def _unwrap_methods(kind: type[Kind]) -> type[Kind]:
    """The class with the methods that it wraps itself; a step computes the same numbers, and no gradient of its own."""
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in WRAPPED}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)


SGD = _unwrap_methods(torch.optim.SGD)
Adam = _unwrap_methods(torch.optim.Adam)
AdamW = _unwrap_methods(torch.optim.AdamW)
