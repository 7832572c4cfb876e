"""A trained network -> all its caches, in one pass over the data."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import cli


def dump(
    network: Annotated[str, typer.Argument(metavar="TEACHER", help="A name under teachers: (or students:).")],
    params: cli.ParamsFile = cli.DEFAULT_PARAMS,
    device: cli.Device = "auto",
) -> None:
    """Compute all configured dumps of a network in a single forward pass, the same bytes as one by one."""
    from pipeline import runs

    runs.make_dumps(cli.open_study(params), network, device, show=cli.show)


if __name__ == "__main__":
    cli.main(dump)
