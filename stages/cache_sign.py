"""A cache and a private key -> a signature beside the cache."""

from __future__ import annotations

from stages import cli, options


def sign(cache: options.CacheArgument, key: options.KeyOption) -> None:
    """Sign a cache's root digest, after a look at all its bytes, so that others can see who vouches for it."""
    from pipeline import runs

    cli.show(runs.sign_cache(cache, key))


if __name__ == "__main__":
    cli.main(sign)
