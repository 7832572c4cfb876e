"""A manifest's entries, from what a writer knows. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline import __version__
from pipeline.cache.codecs import Format
from pipeline.cache.manifest import FORMAT_VERSION
from pipeline.cache.store_plan import StorePlan


def to_plain_entries(description: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that say what a cache is, as plain values."""
    return {key: value.model_dump() if hasattr(value, "model_dump") else value for key, value in description.items()}


def build_manifest_entries(
    plan: StorePlan,
    store: Format,
    description: Mapping[str, Any],
    *,
    files: Mapping[str, Mapping[str, Any]],
    values: str,
) -> dict[str, Any]:
    """All entries of a manifest but `root`.

    Args:
        plan, store: how the arrays are kept.
        description: the entries that say what the cache is, as plain values.
        files: size and digest of each file, by its path below the cache's folder.
        values: the digest of the values.
    """
    return {
        "format": "teachercache",
        "version": FORMAT_VERSION,
        "store": store,
        "package": __version__,
        "axes": "view, sample",
        "rows": plan.rows,
        "arrays": {
            name: {
                "shape": list(plan.shape(name)),
                "dtype": array.dtype,
                "codec": array.codec,
                "chunk_rows": plan.grids[name].chunk_rows,
                "shard": list(plan.grids[name].shard) if store == "zarr" else None,
            }
            for name, array in plan.arrays.items()
        },
        "files": files,
        "values": values,
        **description,
    }
