"""A cache at a URL -> the same here."""

from __future__ import annotations

from stages import cli, options


def pull(
    url: options.PullUrlArgument,
    to: options.PullToArgument = None,
    expect: options.ExpectOption = None,
    storage: options.StorageOption = None,
) -> None:
    """Bring a cache here, each byte checked as it arrives; its folder appears when it is whole.

    An interrupted pull goes on.
    """
    from pipeline import runs

    wanted = cli.read_expectations(expect)
    cli.show(runs.pull_cache(url, to, expect=wanted, storage_options=cli.storage_options(storage)))


if __name__ == "__main__":
    cli.main(pull)
