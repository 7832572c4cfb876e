"""Prepared data -> data/teachers/<teacher>."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import cli, options


def train_teacher(
    teacher: Annotated[str, typer.Argument(help="A name under teachers: in params.yaml.")],
    params: options.ParamsOption = options.PARAMS,
    device: options.DeviceOption = "auto",
    memory: options.MemoryOption = None,
) -> None:
    """Train a teacher (or take one from a file, or join members) and measure it on the test part."""
    from pipeline import runs

    cli.show(runs.train_teacher(runs.open_study(params), teacher, device, memory=memory))


if __name__ == "__main__":
    cli.main(train_teacher)
