"""A trained network -> data/cache/<dump>, field hints."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import cli


def dump_hints(
    dump: Annotated[str, typer.Argument(help="A name under dumps: in params.yaml, of field hints.")],
    params: cli.ParamsFile = cli.DEFAULT_PARAMS,
    device: cli.Device = "auto",
) -> None:
    """Compute a network's activations at its taps for every sample, once, and seal them in a cache."""
    from pipeline import runs

    cli.show(runs.make_dump(cli.open_study(params), dump, "hints", device))


if __name__ == "__main__":
    cli.main(dump_hints)
