"""A cache -> the same in another store, number format, compression or chunks, or with other terms of use."""

from __future__ import annotations

from stages import cli, options


def convert(
    cache: options.CacheArgument,
    to: options.ConvertToArgument,
    store: options.OtherStoreOption = None,
    dtype: options.OtherDtypeOption = None,
    codec: options.OtherCodecOption = None,
    chunk_kib: options.ChunkKibOption = None,
    terms: options.TermsOption = None,
    storage: options.StorageOption = None,
) -> None:
    """Write a cache in another form or on other terms; without --dtype the digest of its values stays the same."""
    from pipeline import runs

    made = runs.convert_cache(
        cache, to, store=store, dtype=dtype, codec=codec, chunk_kib=chunk_kib,
        terms=cli.read_terms(terms), storage_options=cli.storage_options(storage),
    )  # fmt: skip
    cli.show(made)


if __name__ == "__main__":
    cli.main(convert)
