"""Prepared data -> data/teachers/<teacher>."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import cli


def train_teacher(
    teacher: Annotated[str, typer.Argument(help="A name under teachers: in params.yaml.")],
    params: cli.ParamsFile = cli.DEFAULT_PARAMS,
    device: cli.Device = "auto",
) -> None:
    """Train a teacher (or take one from a file, or join members) and measure it on the test part."""
    from pipeline import runs

    cli.show(runs.train_teacher(cli.open_study(params), teacher, device))


if __name__ == "__main__":
    cli.main(train_teacher)
