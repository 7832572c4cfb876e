"""Number formats on disk. numpy has no bfloat16: its bits are kept as uint16."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

DType = Literal["float16", "float32", "bfloat16", "int16", "int32", "int64", "uint8"]


def storage_dtype(dtype: str) -> np.dtype[Any]:
    """The little-endian numpy dtype that holds a format's bits."""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder("<")


def round_to_dtype(values: NDArray[np.floating[Any]], dtype: str) -> NDArray[Any]:
    """Floats in a format, as `storage_dtype` holds them, rounded to nearest even; beyond its range inf.

    (To bfloat16 by way of float32: exact for values that are float32.)
    """
    with np.errstate(over="ignore"):
        if dtype != "bfloat16":
            return values.astype(storage_dtype(dtype))
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    # Half of the dropped 16 bits, less one where the kept part is even; a NaN stays one.
    nearest = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(values), np.uint32(0x7FC0), nearest).astype("<u2")


def widen_bfloat16(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """What the stored bits mean: bfloat16 widened to float32 (exact), all else as it is."""
    if dtype != "bfloat16":
        return values
    return (values.astype(np.uint32) << 16).view(np.float32)
