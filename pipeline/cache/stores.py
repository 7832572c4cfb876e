"""The stores that arrays are kept in: one module a format, named in `STORES`.

Each has `assemble_store`, `check_store` and `check_own_store`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from pipeline.cache.codecs import Format

STORES: dict[Format, str] = {"zarr": "pipeline.cache.zarr_store", "hdf5": "pipeline.cache.hdf5_store"}


def load_store(name: Format) -> ModuleType:
    """The module of a format, imported when it is first used."""
    return importlib.import_module(STORES[name])
