"""A cache at a glance, as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.cache import Cache, Manifest
from pipeline.datasets.dataset import load_dataset
from pipeline.dumps.hooks import plan_arrays
from pipeline.inspection import INSPECTIONS


def describe_manifest(manifest: Manifest) -> dict[str, Any]:
    """What a manifest alone says: what the cache is, from whom, of which data, on which terms, how large.

    What it does not say (the stored bytes of each array, the field's own facts) is None.
    """
    kept = {"computed": None, "sharing": None, **manifest.comparable_entries()}
    arrays = {
        name: {
            "shape": array.shape,
            "dtype": array.dtype,
            "codec": array.codec,
            "bytes": array.bytes,
            "stored_bytes": None,
            "chunks": array.grid.count,
        }
        for name, array in manifest.arrays.items()
    }
    return {
        **{key: kept[key] for key in ("field", "teacher", "dataset", "views", "axes", "rows", "batch", "computed")},
        **{key: kept[key] for key in ("sharing", "store", "version", "package", "values", "root")},
        "arrays": arrays,
        "files": len(manifest.files),
        "bytes": sum(file.bytes for file in manifest.files.values()),
        "facts": None,
    }


def inspect_cache(cache: Cache, labels: NDArray[np.int64] | None) -> dict[str, Any]:
    """What its manifest says, the stored bytes of its arrays, and the field's own facts.

    Args:
        cache: opened.
        labels: of the samples that it holds, (rows,), or None.
    """
    manifest, name = cache.manifest, cache.manifest.field.name
    known = name in INSPECTIONS.entries
    if known:
        cache.refuse_other_arrays(plan_arrays(name, manifest.field.parameters, len(manifest.dataset.classes)))
    made = describe_manifest(manifest)
    for array, its in made["arrays"].items():
        its["stored_bytes"] = int(cache.table.arrays[array].records["bytes"].sum())
    return {**made, "facts": INSPECTIONS.import_function(name)(cache, labels) if known else {}}


def read_labels(cache: Cache, prepared: Path) -> NDArray[np.int64]:
    """The labels of a cache's samples, (rows,); of a cache of batches those of all training samples.

    Args:
        cache: opened.
        prepared: the folder of the prepared data set.

    Raises:
        InputError: no data there, or other data than the cache was made for.
    """
    dataset = load_dataset(prepared, resident=False)
    if dataset.fingerprint != cache.manifest.dataset.fingerprint:
        raise InputError(
            f"data in {prepared}",
            expected=f"the cache's data set ({cache.manifest.dataset.fingerprint[:12]})",
            found=f"another one ({dataset.fingerprint[:12]})",
        )
    return dataset.labels[: cache.manifest.rows if cache.manifest.unit == "sample" else dataset.bounds[0]]
