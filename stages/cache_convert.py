"""A cache -> the same in another store, number format or compression."""

from __future__ import annotations

from stages import cli, options


def convert(
    cache: options.CacheArgument,
    to: options.ConvertToArgument,
    store: options.OtherStoreOption = None,
    dtype: options.OtherDtypeOption = None,
    codec: options.OtherCodecOption = None,
    storage: options.StorageOption = None,
) -> None:
    """Write a cache in another form; without --dtype the digest of its values stays the same."""
    from pipeline import runs

    url = cli.storage_options(storage)
    cli.show(runs.convert_cache(cache, to, store=store, dtype=dtype, codec=codec, storage_options=url))


if __name__ == "__main__":
    cli.main(convert)
