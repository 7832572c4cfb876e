"""What every field of a dump is: the arrays it will fill, and the values of one block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from pipeline.cache.blocks import ArrayPlan, Block

EXTERNAL = {"name": "external"}  # the architecture of a network that only its owner knows


@dataclass(frozen=True)
class Field:
    """A field of one teacher on one data set, ready to be computed.

    Attributes:
        arrays: by name, the shape of a row and the dtype on disk.
        rows: their number (samples, or batches).
        compute: the values of a block's rows, by array.
    """

    arrays: Mapping[str, ArrayPlan]
    rows: int
    compute: Callable[[Block], Mapping[str, NDArray[Any]]]


def decisive(options: Mapping[str, Any]) -> dict[str, Any]:
    """A field's options that decide its values: compression does not."""
    return {key: value for key, value in options.items() if key != "codec"}
