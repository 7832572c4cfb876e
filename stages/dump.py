"""A trained network -> its caches, in one pass over the data."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import cli, options


def dump(
    network: Annotated[str, typer.Argument(metavar="TEACHER", help="A name under teachers: (or students:).")],
    dumps: Annotated[
        list[str] | None, typer.Argument(metavar="DUMP", help="Names under dumps:; all of the network's unless given.")
    ] = None,
    params: options.ParamsOption = options.PARAMS,
    device: options.DeviceOption = "auto",
    part: Annotated[str | None, typer.Option(help="One part, such as 2/3, for `cache merge`.")] = None,
) -> None:
    """Compute configured dumps of a network in a single forward pass, the same bytes as one by one."""
    from pipeline import runs

    share = None if part is None else runs.read_part(part)
    runs.make_dumps(runs.open_study(params), network, device, dumps=dumps or (), part=share, show=cli.show)


if __name__ == "__main__":
    cli.main(dump)
