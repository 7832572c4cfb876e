"""A cache -> the same in another store, number format, compression or chunks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import cache as room
from pipeline.base.errors import InputError
from pipeline.base.registry import NestedError
from pipeline.cache.codecs import Codec, Format
from pipeline.cache.rewrite import convert_cache as rewrite_cache
from pipeline.cache.store_plan import MAX_CHUNK_BYTES
from pipeline.dumps import FIELDS
from pipeline.dumps.logits import LogitsType
from pipeline.runs.new_folders import open_work_beside, refuse_codec, refuse_existing
from pipeline.runs.result import Result
from pipeline.runs.terms import read_terms
from pipeline.study.part_sections import DumpParams


def convert_cache(
    cache: Path | str,
    to: Path,
    *,
    store: Format | None = None,
    dtype: LogitsType | None = None,
    codec: Codec | None = None,
    chunk_kib: int | None = None,
    terms: Mapping[str, str | None] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Result:
    """Write a cache in another form or on other terms; without `dtype` the digest of its values stays the same.

    Args:
        cache: its folder, or a URL.
        to: a new folder.
        store: "zarr" or "hdf5"; None keeps it.
        dtype: of the numbers; None keeps every bit.
        codec: None keeps it where the store has it.
        chunk_kib: KiB of a decoded chunk, 1 to 1,048,576; None: by the codec.
        terms: `licence`, `citation` and `contact`; what is left out stays as it is.
        storage_options: of the URL's file system.

    Raises:
        InputError: no sound cache, a place that is taken, or a form that such a cache cannot have.
    """
    refuse_existing(to)
    opened = room.open(cache, storage_options=storage_options)
    refuse_codec(codec, store or opened.manifest.store)
    if chunk_kib is not None and not 1 <= chunk_kib <= MAX_CHUNK_BYTES >> 10:
        raise InputError("chunk_kib", expected=f"1 to {MAX_CHUNK_BYTES >> 10:,}", found=f"{chunk_kib:,}")
    if dtype is not None and "dtype" in opened.manifest.field.parameters:
        _refuse_dtype(opened.manifest.field.name, dtype)
    form: dict[str, Any] = {"store": store, "dtype": dtype, "codec": codec, "chunk_kib": chunk_kib}
    sharing = read_terms(terms, opened.manifest.sharing)
    with open_work_beside(to) as work:
        made = rewrite_cache(opened, to, work, **form, sharing=sharing)
    kept = made.values == opened.manifest.values
    size = sum(file.bytes for file in made.files.values())
    summary = f"{made.store}, {len(made.files)} files, {size:,} bytes, {'the same' if kept else 'other'} values"
    return Result(
        {"root": made.root, "same_values": kept, "files": len(made.files), "bytes": size},
        text=(f"{to}: {summary}, root {made.root[:12]}",),
    )


def _refuse_dtype(field: str, dtype: str) -> None:
    """Raise InputError for a number format that no dump of this field has."""
    if field in FIELDS.entries:
        try:
            FIELDS.parse({"field": field, "of": "any", "dtype": dtype}, tag="field", base=DumpParams)
        except NestedError as error:
            raise InputError(f"--dtype of field {field}: {error.errors[0][1]}") from None
