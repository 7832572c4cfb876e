"""The choice of a tap in a dump of activations, for the terms that read one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def find_hint_mismatch(hint: str | None, dump: Mapping[str, Any]) -> str | None:
    """Why a dump does not hold the hint; a dump of several taps needs a name."""
    held = dump["taps"]
    if hint is None and len(held) > 1:
        return f"hint: missing; expected one of {', '.join(held)}"
    return None if hint in (None, *held) else f"hint: expected one of {', '.join(held)}, found {hint!r}"


def select_hint(target: Tensor | Mapping[str, Tensor], hint: str | None) -> Tensor:
    """The activations (B, ...) of a tap, or of the only one."""
    if isinstance(target, Tensor):
        return target
    return target[hint] if hint is not None else next(iter(target.values()))
