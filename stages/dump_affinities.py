"""A trained network -> data/cache/<dump>, field affinities."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import cli


def dump_affinities(
    dump: Annotated[str, typer.Argument(help="A name under dumps: in params.yaml, of field affinities.")],
    params: cli.ParamsFile = cli.DEFAULT_PARAMS,
    device: cli.Device = "auto",
) -> None:
    """Compute the t-SNE affinities of each batch of a plan, once, and seal them in a cache."""
    from pipeline import runs

    cli.show(runs.make_dump(cli.open_study(params), dump, "affinities", device))


if __name__ == "__main__":
    cli.main(dump_affinities)
