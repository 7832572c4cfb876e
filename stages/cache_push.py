"""A cache -> the same at a URL."""

from __future__ import annotations

from stages import cli, options


def push(
    cache: options.PushedArgument,
    url: options.PushUrlArgument,
    expect: options.ExpectOption = None,
    replace: options.ReplaceOption = False,
    check: options.ReadBackOption = False,
    storage: options.StorageOption = None,
) -> None:
    """Send a verified cache to a URL: only what is missing there, the manifest last. An interrupted push goes on."""
    from pipeline import runs

    wanted, url_options = cli.read_expectations(expect), cli.storage_options(storage)
    cli.show(runs.push_cache(cache, url, expect=wanted, exchange=replace, check=check, storage_options=url_options))


if __name__ == "__main__":
    cli.main(push)
