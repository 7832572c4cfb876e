"""Two caches -> what differs."""

from __future__ import annotations

import typer

from stages import cli, options


def diff(
    a: options.CacheArgument,
    b: options.OtherCacheArgument,
    storage: options.StorageOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Say which entries and which samples of two caches differ, whatever their stores and chunks.

    Exit code 0: nothing differs; 1: something does; 2: one is no sound cache.
    """
    from pipeline import runs

    found = runs.diff_caches(a, b, cli.storage_options(storage))
    cli.show(found, as_json=as_json)
    if found.values["entries"] or not found.values["same_values"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    cli.main(diff)
