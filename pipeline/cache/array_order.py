"""The order of a cache's arrays, in its card and in an HDF5 file. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

TOP_K_ARRAYS = ("values", "indices", "tail")  # of logits, with top_k


def sort_arrays(arrays: Mapping[str, T], field: Mapping[str, Any]) -> dict[str, T]:
    """Arrays by name, in the order of the format (section 6): as `taps` names them, `values, indices, tail`,
    and all others by name.

    A manifest's keys are sorted, so the order must follow from what else it says: a repaired cache is
    then the sealed one to the byte.

    Args:
        arrays: in any order.
        field: the manifest's entry, `name` and `parameters`.
    """
    taps = field["parameters"].get("taps")
    stated = [name for name in taps if isinstance(name, str)] if isinstance(taps, list | tuple) else TOP_K_ARRAYS
    places = {name: place for place, name in enumerate(dict.fromkeys(stated))}
    return {name: arrays[name] for name in sorted(arrays, key=lambda name: (places.get(name, len(places)), name))}
