"""A cache -> the same in another store, number format, compression or chunks."""

from __future__ import annotations

from stages import cli, options


def convert(
    cache: options.CacheArgument,
    to: options.ConvertToArgument,
    store: options.OtherStoreOption = None,
    dtype: options.OtherDtypeOption = None,
    codec: options.OtherCodecOption = None,
    chunk_kib: options.ChunkKibOption = None,
    storage: options.StorageOption = None,
) -> None:
    """Write a cache in another form; without --dtype the digest of its values stays the same."""
    from pipeline import runs

    url = cli.storage_options(storage)
    made = runs.convert_cache(
        cache, to, store=store, dtype=dtype, codec=codec, chunk_kib=chunk_kib, storage_options=url
    )
    cli.show(made)


if __name__ == "__main__":
    cli.main(convert)
