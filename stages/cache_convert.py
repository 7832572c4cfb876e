"""A cache -> the same in another store, number format or compression."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from stages import cli


def convert(
    cache: cli.CacheArgument,
    to: Annotated[Path, typer.Argument(help="A new folder.")],
    store: Annotated[Literal["zarr", "hdf5"] | None, typer.Option("--format", help="Unchanged unless given.")] = None,
    dtype: Annotated[
        Literal["float16", "bfloat16", "float32"] | None,
        typer.Option("--dtype", help="Of the numbers; unless given, every bit is kept, and that is checked."),
    ] = None,
    codec: Annotated[Literal["none", "zstd", "gzip"] | None, typer.Option("--codec", help="Compression.")] = None,
    storage: cli.StorageOptions = None,
) -> None:
    """Write a cache in another form; without --dtype the digest of its values stays the same."""
    from pipeline import cache as room
    from pipeline.cache.rewrite import convert_cache as rewrite

    cli.refuse_existing(to)
    opened = room.open(cache, storage_options=cli.storage_options(storage))
    cli.refuse_codec(codec, store or opened.manifest.store)
    if dtype is not None and "dtype" in opened.manifest.field.parameters:
        _refuse_dtype(opened.manifest.field.name, dtype)
    with cli.work_beside(to) as work:
        made = rewrite(opened, to, work, store=store, dtype=dtype, codec=codec)
    same = "the same values" if made.values == opened.manifest.values else "other values"
    size = sum(file.bytes for file in made.files.values())
    typer.echo(f"{to}: {made.store}, {len(made.files)} files, {size:,} bytes, {same}, root {made.root[:12]}")


def _refuse_dtype(field: str, dtype: str) -> None:
    """Raise InputError for a number format that no dump of this field has."""
    from pipeline.base.errors import InputError
    from pipeline.base.registry import NestedError
    from pipeline.dumps import FIELDS
    from pipeline.study.parts import DumpParams

    if field in FIELDS.entries:
        try:
            FIELDS.parse({"field": field, "of": "any", "dtype": dtype}, tag="field", base=DumpParams)
        except NestedError as error:
            raise InputError(f"--dtype of field {field}: {error.errors[0][1]}") from None


if __name__ == "__main__":
    cli.main(convert)
