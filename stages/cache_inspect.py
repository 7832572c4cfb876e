"""A cache -> what it holds, on the terminal or as JSON."""

from __future__ import annotations

from stages import cli, options


def inspect(
    cache: options.CacheArgument,
    data: options.InspectDataOption = None,
    numbers: options.NumbersOption = False,
    storage: options.StorageOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Say what a cache holds, from which teacher and data, on which terms, and how its numbers look.

    Of a URL the manifest alone is fetched, unless --numbers or --data ask for more.
    """
    from pipeline import runs

    found = runs.inspect_cache(cache, data, cli.storage_options(storage), numbers=numbers)
    cli.show(found, as_json=as_json, sort_keys=True)


if __name__ == "__main__":
    cli.main(inspect)
