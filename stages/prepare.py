"""Source -> data/prepared/<dataset>."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import cli, options


def prepare(
    dataset: Annotated[str, typer.Argument(help="A name under datasets: in params.yaml.")],
    params: options.ParamsOption = options.PARAMS,
) -> None:
    """Read a data set's files, split them, and write the arrays that all later stages read."""
    from pipeline import runs

    cli.show(runs.prepare_dataset(runs.open_study(params), dataset))


if __name__ == "__main__":
    cli.main(prepare)
