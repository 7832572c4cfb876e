"""Prepared data and caches -> data/students/<student>."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import cli, options


def train_student(
    student: Annotated[str, typer.Argument(help="A name under students: in params.yaml.")],
    params: options.ParamsOption = options.PARAMS,
    device: options.DeviceOption = "auto",
    memory: options.MemoryOption = None,
) -> None:
    """Train a student, once for each of its seeds, from the cache alone: no teacher is loaded."""
    from pipeline import runs

    cli.show(runs.train_student(runs.open_study(params), student, device, memory=memory))


if __name__ == "__main__":
    cli.main(train_student)
